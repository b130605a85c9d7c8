"""The page in headless Chromium: it fits a phone, asks the network for nothing, its console stays empty."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
from made_up_study import make_study

from batchmix.study.comparisons import compare_all
from batchmix.study.page import as_html
from batchmix.study.sentences import write_sentences

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"needs one of {', '.join(NAMES)}, and found none")

WIDTHS = (360, 1200)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # what the page allows itself
# Stands in a copy of the page, in place of its policy: the same one, but scripts may run, the probe's as well
# as those that a text might smuggle in. What the browser made of the page goes to the page around it.
PROBE = f"""<meta http-equiv="Content-Security-Policy" content="{POLICY}; script-src 'unsafe-inline'">
<script>
const asked = [];
document.addEventListener("securitypolicyviolation", (event) => asked.push(event.blockedURI));
addEventListener("load", () => setTimeout(() => {{
  const root = document.documentElement, style = getComputedStyle(document.body);
  const rights = (what) => [...document.querySelectorAll(what)].map((e) => e.getBoundingClientRect().right);
  parent.postMessage({{
    frame: name, inner: innerWidth, wide: root.scrollWidth, paper: style.backgroundColor, ink: style.color,
    boxes: rights(".scroll, pre, svg"), asked, text: document.body.innerText,
    charts: [...document.querySelectorAll("svg")].map((e) => e.getBoundingClientRect().width),
  }}, "*");
}}, 200));
</script>"""
FRAMES = """<!doctype html><script>
const seen = {};
addEventListener("message", (event) => {
  seen[event.data.frame] = event.data;
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
</script>"""

ATTACK = "<img src=x onerror=console.error(1)><script>console.error(2)</script>"
STUDIES = {
    "three arms": make_study(effect={"mixup": 0.01}),
    "budgets and failures": make_study(epochs=(5, 10, 20, 40), failed=[("cutmix", 1)]),
    "long names": make_study(("none", *(f"mixup:alpha={'1' * i}" for i in (8, 40, 90))), range(2)),
    "one run": make_study(("none",), seeds=[0]),
    "attack": make_study(("none", ATTACK), failed=[(ATTACK, 0)]),
}


def look(pages, folder, *flags):
    """What the browser saw of each page at each width, by (name, width), and what it wrote to its console.

    The pages stand in frames of these widths, because a window is never narrower than 500 pixels.
    """
    frames = [FRAMES]
    for number, (name, text) in enumerate(pages.items()):
        (folder / f"{number}.html").write_text(text, encoding="utf-8")
        frames += [
            f'<iframe name="{name}|{width}" width="{width}" height="800" style="border: 0" '
            f'src="{number}.html"></iframe>'
            for width in WIDTHS
        ]
    (folder / "frames.html").write_text("\n".join(frames), encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1300,900", *flags]
    command += ["--virtual-time-budget=5000", "--dump-dom", (folder / "frames.html").as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    (found,) = re.findall(r'data-seen="([^"]*)"', ran.stdout)
    seen = {
        (frame.split("|")[0], int(frame.split("|")[1])): what
        for frame, what in json.loads(html.unescape(found)).items()
    }
    return seen, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


def page_of(study):
    comparisons = compare_all(study)
    return as_html(study, comparisons, write_sentences(study, comparisons))


def with_probe(text):
    changed, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', lambda _: PROBE, text)
    assert count == 1
    return changed


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    pages = {name: with_probe(page_of(study)) for name, study in STUDIES.items()}
    return look(pages, tmp_path_factory.mktemp("looks"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", STUDIES)
def test_the_page_fits_and_asks_for_nothing(looks, name, width):
    seen, _ = looks
    found = seen[name, width]
    assert found["inner"] == width
    assert found["wide"] <= width
    assert max(found["boxes"]) <= width
    assert found["asked"] == []
    assert len(found["charts"]) > 0
    assert all(240 < chart < 500 for chart in found["charts"])  # wide enough to read on a phone
    for arm in STUDIES[name].arms:
        assert arm in found["text"]


def test_the_console_stays_empty_even_where_a_text_tries_to_run(looks):
    _, console = looks
    assert console == []


def test_the_page_forbids_itself_scripts_and_the_network():
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in page_of(STUDIES["one run"])


def test_light_and_dark_both_have_contrast(looks, tmp_path):
    pages = {"three arms": with_probe(page_of(STUDIES["three arms"]))}
    dark, _ = look(pages, tmp_path, "--blink-settings=preferredColorScheme=0")
    papers = []
    for seen in (looks[0], dark):
        paper, ink = (brightness(seen["three arms", 360][name]) for name in ("paper", "ink"))
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 7  # what WCAG calls AAA
        papers.append(paper)
    assert papers[0] > 0.9
    assert papers[1] < 0.05


def brightness(colour):
    """Relative luminance of "rgb(r, g, b)", as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_look_can_fail(tmp_path):
    """A page too wide, with an error on its console and an image from elsewhere, is caught in all three."""
    bad = (
        f"<!doctype html><head>{PROBE}</head><body><div style='width: 900px'>wide</div>"
        "<img src='http://127.0.0.1:9/there.png'><script>console.error('oh')</script></body>"
    )
    seen, console = look({"bad": bad}, tmp_path)
    assert seen["bad", 360]["wide"] > 360
    assert any('"oh"' in line for line in console)
    assert seen["bad", 360]["asked"] == ["http://127.0.0.1:9/there.png"]
