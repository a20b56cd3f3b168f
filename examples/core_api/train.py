# A line through points, found by gradient descent. The Core API adds metrics, checkpoints, and resumption
# after an interruption.
#
# It is a plain program: `python3 train.py` runs it by hand for one batch, and logs what it would report.

import json
import pathlib
import random

import determined as det

POINTS = [(x / 50, 3 * x / 50 + 1 + random.Random(x).gauss(0, 0.1)) for x in range(50)]


def descend(slope, offset, learning_rate):
    errors = [(slope * x + offset - y, x) for x, y in POINTS]
    slope -= learning_rate * sum(error * x for error, x in errors) / len(POINTS)
    offset -= learning_rate * sum(error for error, _ in errors) / len(POINTS)
    return slope, offset, sum(error**2 for error, _ in errors) / len(POINTS)


def load(core_context, checkpoint):
    with core_context.checkpoint.restore_path(checkpoint) as path:
        state = json.loads((pathlib.Path(path) / "state.json").read_text())
    return state["batch"], state["slope"], state["offset"]


def save(core_context, batch, slope, offset):
    with core_context.checkpoint.store_path({"steps_completed": batch}) as (path, _):
        (path / "state.json").write_text(json.dumps({"batch": batch, "slope": slope, "offset": offset}))


def main(core_context):
    info = det.get_cluster_info()  # None when the script is run by hand
    learning_rate = info.trial.hparams["learning_rate"] if info else 0.3
    batch, slope, offset = 0, 0.0, 0.0
    if info and info.latest_checkpoint:
        batch, slope, offset = load(core_context, info.latest_checkpoint)
    for op in core_context.searcher.operations():
        while batch < op.length:
            slope, offset, loss = descend(slope, offset, learning_rate)
            batch += 1
            if batch % 20 == 0 or batch == op.length:
                core_context.train.report_training_metrics(steps_completed=batch, metrics={"loss": loss})
                op.report_progress(batch)
                if core_context.preempt.should_preempt():
                    save(core_context, batch, slope, offset)
                    return
        core_context.train.report_validation_metrics(
            steps_completed=batch, metrics={"loss": loss, "slope": slope, "offset": offset}
        )
        op.report_completed(loss)
    save(core_context, batch, slope, offset)


if __name__ == "__main__":
    with det.core.init() as core_context:
        main(core_context)
