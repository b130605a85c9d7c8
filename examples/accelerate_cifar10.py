"""mixup in a loop with Hugging Face's Accelerate: airplanes and cars of CIFAR-10, by a small ResNet.

pip install -e '.[cli,transformers]'
python examples/accelerate_cifar10.py    # reaches 92 % in half a minute on two cores
"""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from transformers import ResNetConfig, ResNetForImageClassification

import batchmix as bm
from batchmix.data import load_cifar10

EPOCHS = 3


def make_loader(images, labels, **options):
    """Batches of airplanes and cars."""
    keep = labels < 2
    x = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return DataLoader(TensorDataset(x, torch.from_numpy(labels[keep]).long()), **options)


set_seed(0)
data = load_cifar10()
train_loader = make_loader(data.train_x, data.train_y, batch_size=32, shuffle=True)
test_loader = make_loader(data.test_x, data.test_y, batch_size=256)
model = ResNetForImageClassification(
    ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic")
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, total_iters=EPOCHS * len(train_loader) // 2)

accelerator = Accelerator(gradient_accumulation_steps=2)
model, optimizer, schedule, train_loader, test_loader = accelerator.prepare(
    model, optimizer, schedule, train_loader, test_loader
)
mixup = bm.Mixup(0.4, seed=0)  # in every process the same, as a checkpoint has it
accelerator.register_for_checkpointing(mixup)  # load_state goes on with the draws of save_state

for epoch in range(EPOCHS):
    model.train()
    for x, y in train_loader:
        with accelerator.accumulate(model):
            x, y = mixup(x, y)  # the line to add
            loss = F.cross_entropy(model(x).logits, y)
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()
    right = []
    with torch.no_grad():
        for x, y in test_loader:
            right.append(accelerator.gather_for_metrics(model(x).logits.argmax(1) == y))
    accuracy = torch.cat(right).float().mean().item()
    accelerator.print(f"epoch {epoch + 1}: accuracy {100 * accuracy:.1f} %")
