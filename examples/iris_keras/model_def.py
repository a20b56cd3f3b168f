# Iris flowers, told apart by the lengths of their leaves: the smallest trial that reads a tf.data.Dataset.
#
# The data set comes with scikit-learn: 150 flowers of three kinds, no download. Run it with
# `detbuild create const.yaml . -f`.

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris

from determined.keras import TFKerasTrial, TFKerasTrialContext

keras = tf.keras
KINDS = 3


class IrisTrial(TFKerasTrial):
    def __init__(self, context: TFKerasTrialContext) -> None:
        self.context = context
        leaves, kinds = load_iris(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(kinds))
        self.leaves = leaves[order].astype("float32")
        self.kinds = np.eye(KINDS, dtype="float32")[kinds[order]]

    def build_model(self):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(self.context.get_hparam("layer1_dense_size"), activation="relu"),
                keras.layers.Dense(KINDS, activation="softmax"),
            ]
        )
        model = self.context.wrap_model(model)
        optimizer = keras.optimizers.RMSprop(learning_rate=self.context.get_hparam("learning_rate"))
        optimizer = self.context.wrap_optimizer(optimizer)
        model.compile(
            optimizer=optimizer,
            loss="categorical_crossentropy",
            metrics=[keras.metrics.CategoricalAccuracy()],
        )
        return model

    def build_training_data_loader(self):
        flowers = self.context.wrap_dataset(tf.data.Dataset.from_tensor_slices((self.leaves, self.kinds)))
        train = flowers.take(120)
        return train.shuffle(120).batch(self.context.get_per_slot_batch_size()).prefetch(1)

    def build_validation_data_loader(self):
        flowers = self.context.wrap_dataset(tf.data.Dataset.from_tensor_slices((self.leaves, self.kinds)))
        return flowers.skip(120).batch(self.context.get_per_slot_batch_size())
