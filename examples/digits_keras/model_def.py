# Handwritten digits, classified by a small convolutional network in Keras.
#
# The data set comes with scikit-learn: 1,797 images of 8 x 8 pixels, no download. In a few seconds on a CPU
# the network classifies more than 90 % of the digits. Run it with `detbuild create const.yaml . -f`.

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from determined.keras import TFKerasTrial, TFKerasTrialContext, callbacks

keras = tf.keras


class DigitsTrial(TFKerasTrial):
    def __init__(self, context: TFKerasTrialContext) -> None:
        self.context = context
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        self.images = (images[order] / 16).reshape(-1, 8, 8, 1).astype("float32")
        self.labels = labels[order]
        self.train_size = int(0.8 * len(labels))

    def build_model(self):
        width = self.context.get_hparam("n_filters")
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dropout(self.context.get_hparam("dropout")),
                keras.layers.Dense(10),
            ]
        )
        model = self.context.wrap_model(model)
        model.compile(
            optimizer=keras.optimizers.Adam(self.context.get_hparam("learning_rate")),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def build_training_data_loader(self):
        return self.images[: self.train_size], self.labels[: self.train_size]

    def build_validation_data_loader(self):
        return self.images[self.train_size :], self.labels[self.train_size :]

    def keras_callbacks(self):
        return [callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=2)]
