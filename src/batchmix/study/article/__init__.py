"""The article's claims, each by an experiment that could refute it: ``batchmix compare --preset article``.

Studies train nets, three measurements need none; the page is made from their records alone.

The article: Gugger 2018, "Mixup data augmentation", fast.ai.
"""

from __future__ import annotations

from batchmix.study.article.presets import PRESETS, Scale
from batchmix.study.article.run import report_article, run_article

__all__ = ["PRESETS", "Scale", "report_article", "run_article"]
