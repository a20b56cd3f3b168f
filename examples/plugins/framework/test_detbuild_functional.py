from detbuild_functional import FunctionalTrial

from determined.testing import TrainableContract


class Line(FunctionalTrial):
    """Gradient descent on (weight - 3)²."""

    def initial(self, hparams, seed):
        return {"weight": 0.0, "lr": hparams["lr"]}

    def train(self, state, batch):
        error = state["weight"] - 3
        return {**state, "weight": state["weight"] - 2 * state["lr"] * error}, {"loss": error**2}

    def validate(self, state):
        return {"validation_loss": (state["weight"] - 3) ** 2}


class TestFunctional(TrainableContract):
    trial_class = Line
    hparams = {"lr": 0.1}
