"""mixup in Keras 3: airplanes and cars of CIFAR-10, by a small ResNet.

pip install -e '.[cli,keras]'
python examples/keras_cifar10.py    # reaches 90 % in half a minute on two cores
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # or "jax"

import keras
from keras import layers

from batchmix.adapters.keras import MixUpDataset
from batchmix.data import load_cifar10

EPOCHS, BATCH = 2, 100


def airplanes_and_cars(images, labels):
    """Images (N, 32, 32, 3) around zero, and their classes."""
    keep = labels < 2
    return images[keep].astype("float32") / 64 - 2, labels[keep]


def conv(x, width, strides=1):
    """A convolution of 3 x 3, normalised."""
    x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def make_resnet():
    """Three stages of growing width, on images of half the size each."""
    x = inputs = keras.Input((32, 32, 3))
    for width in (16, 32, 64):
        x = layers.ReLU()(conv(x, width, strides=2))
        inner = conv(layers.ReLU()(conv(x, width)), width)
        x = layers.ReLU()(layers.Add()([x, inner]))
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


keras.utils.set_random_seed(0)
data = load_cifar10()
x_train, y_train = airplanes_and_cars(data.train_x, data.train_y)
x_test, y_test = airplanes_and_cars(data.test_x, data.test_y)
train = MixUpDataset(x_train, y_train, num_classes=2, batch_size=BATCH)  # for x_train, y_train

model = make_resnet()
schedule = keras.optimizers.schedules.CosineDecay(
    0.0005, EPOCHS * len(train), warmup_target=0.005, warmup_steps=len(train)
)
model.compile(
    optimizer=keras.optimizers.AdamW(schedule),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
test = (x_test, keras.utils.to_categorical(y_test, 2))
model.fit(train, epochs=EPOCHS, validation_data=test, verbose=2)
print(f"accuracy {100 * float(model.evaluate(*test, verbose=0)[1]):.1f} %")
