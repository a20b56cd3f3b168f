"""`Determined`: Determined's connection to a master; here the experiments of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detbuild.sdk import create, host, model
from detbuild.sdk.checkpoint import TrialMetrics, iter_trial_metrics
from detbuild.sdk.enums import ExperimentSortBy, ExperimentState, ModelSortBy, OrderBy
from detbuild.sdk.experiment import Experiment
from detbuild.sdk.trial import Trial
from determined.experimental._say import logged, note_ignored, note_no_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from detbuild.api.documents import Summary
    from detbuild.sdk.checkpoint import Checkpoint
    from detbuild.sdk.model import Model


class Determined:
    """The experiments of this host. Login arguments are ignored, with a log line.

    Args:
        master: Ignored, like the other arguments: address, user, password and certificate of a master.
    """

    def __init__(
        self,
        master: str | None = None,
        user: str | None = None,
        password: str | None = None,
        *,
        cert_path: str | None = None,
        cert_name: str | None = None,
        noverify: bool = False,
    ) -> None:
        for name, value in (
            ("master", master),
            ("user", user),
            ("password", password),
            ("cert_path", cert_path),
            ("cert_name", cert_name),
            ("noverify", noverify or None),
        ):
            note_ignored(name, value, why="there is no server")

    def create_experiment(
        self,
        config: str | Path | dict[str, Any],
        model_dir: str | Path | None = None,
        includes: Iterable[str | Path] | None = None,
        *,
        parent_id: int | None = None,
        project_id: int | None = None,
        template: str | None = None,
    ) -> Experiment:
        """Build an image of a directory, submit, and return the experiment, which runs in the background.

        Args:
            config: An experiment config, or the path of one.
            model_dir: Directory of the code.
            includes: Files and directories to add to it, each under its own name.
            parent_id: Has no effect: parents of experiments are not recorded.
            project_id: Has no effect.
            template: Name of a template to merge below the config.

        Raises:
            DetbuildError: By its kind: config, directory, engine or build.
        """
        note_ignored("parent_id", parent_id, why="set searcher.source_checkpoint_uuid instead")
        note_ignored("project_id", project_id, why="there are no projects here")
        with logged(), host.explained():
            return Experiment(create.create_experiment(config, model_dir or "", includes or (), template))

    def get_experiment(self, experiment_id: int) -> Experiment:
        """Return an experiment by its ID.

        Raises:
            NotFound: It does not exist; an APIException of Determined.
        """
        return Experiment(experiment_id)

    def list_experiments(
        self,
        sort_by: ExperimentSortBy | None = None,
        order_by: OrderBy | None = None,
        *,
        experiment_ids: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        users: Sequence[str] | None = None,
        states: Sequence[ExperimentState] | None = None,
        name: str | None = None,
        project_id: int | None = None,
    ) -> list[Experiment]:
        """Return all experiments, archived ones too, by ID.

        Args:
            sort_by: Field to sort by; experiments without a value come last.
            order_by: Ascending or descending.
            experiment_ids: Only these.
            labels: Only those with all of these.
            users: Has no effect: a home belongs to one user.
            states: Only those in one of these.
            name: Only those with this in their names, ignoring case.
            project_id: Has no effect.
        """
        note_ignored("users", users, why="a home has the experiments of one user")
        note_ignored("project_id", project_id, why="there are no projects here")
        wanted = {state.name for state in states or ()}
        found = [
            summary
            for summary in _listed()
            if (experiment_ids is None or summary.id in experiment_ids)
            and set(labels or ()) <= set(summary.labels)
            and (states is None or summary.state in wanted)
            and (name or "").lower() in summary.name.lower()
        ]
        return [Experiment(summary.id) for summary in _sorted(found, sort_by, order_by)]

    def get_trial(self, trial_id: host.TrialId) -> Trial:
        """Return a trial: "3/2" and (3, 2) are trial 2 of experiment 3, and 3 is its first trial.

        Raises:
            NotFound: It does not exist.
        """
        return Trial(trial_id)

    def get_checkpoint(self, uuid: str) -> Checkpoint:
        """Return a checkpoint by its UUID or a unique prefix of it.

        Raises:
            NotFound: There is none, or several.
        """
        return model.get_checkpoint(uuid)

    def create_model(
        self,
        name: str,
        description: str | None = "",
        metadata: Mapping[str, Any] | None = None,
        labels: Iterable[str] | None = None,
        workspace_name: str | None = None,
    ) -> Model:
        """Add a new model to the registry."""
        return model.create_model(name, description, metadata, labels, workspace_name)

    def get_model(self, identifier: str | int) -> Model:
        """Return a model by its name.

        Raises:
            NotFound: It does not exist.
        """
        return model.get_model(identifier)

    def list_models(
        self,
        sort_by: ModelSortBy = ModelSortBy.NAME,
        order_by: OrderBy = OrderBy.ASC,
        name: str | None = None,
        description: str | None = None,
    ) -> list[Model]:
        """Return all models, by name."""
        return model.list_models(sort_by, order_by, name, description)

    def get_models(
        self,
        sort_by: ModelSortBy = ModelSortBy.NAME,
        order_by: OrderBy = OrderBy.ASC,
        name: str | None = None,
        description: str | None = None,
    ) -> list[Model]:
        """The same under Determined's older name."""
        return model.list_models(sort_by, order_by, name, description)

    def get_model_labels(self) -> list[str]:
        """Return the labels of all models, the most frequent first."""
        return model.get_model_labels()

    def iter_trials_metrics(
        self, trial_ids: Sequence[host.TrialId], group: str | None = None
    ) -> Iterator[TrialMetrics]:
        """Yield the metrics that trials have reported so far, of one group or of all."""
        return iter_trial_metrics(trial_ids, group)

    def stream_trials_metrics(self, trial_ids: Sequence[host.TrialId], group: str) -> Iterator[TrialMetrics]:
        """The same under Determined's older name."""
        return iter_trial_metrics(trial_ids, group)

    def logout(self) -> None:
        """Log that this has no effect."""
        note_no_server("logout")


def _listed() -> list[Summary]:
    """Return all experiments by ID, as they were submitted or changed; warn of damaged ones."""
    with host.explained():
        found = [one.summary for one in host.client(host.warnings_only).listed()]
        return sorted(found, key=lambda summary: summary.id)


def _sorted(
    found: list[Summary], sort_by: ExperimentSortBy | None, order_by: OrderBy | None
) -> list[Summary]:
    key = (sort_by or ExperimentSortBy.ID).value
    known = sorted(
        (summary for summary in found if getattr(summary, key) is not None),
        key=lambda summary: getattr(summary, key),
        reverse=order_by is OrderBy.DESC,
    )
    return known + [summary for summary in found if getattr(summary, key) is None]
