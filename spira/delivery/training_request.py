"""Training request: everything that a run needs to train one observation."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from spira.config import Config, ConfigError, FrozenModel, JsonObject, explain
from spira.evaluation.gate import Gate
from spira.language import Language


class TrainingRequest(FrozenModel):
    """Input of one run of the training pipeline."""

    name: str = ""
    """Name of the run. It follows from what is trained and from the attempt, so that a repeated request is one run."""
    data: str
    """Folder, ``gs://`` or ``s3://`` prefix of the data set."""
    data_digest: str = ""
    """Expected digest of the data; a run whose data differ fails. Empty: no check."""
    config: Config
    gate: Gate
    skip_bad: bool = False
    """Leave bad recordings out instead of refusing the data set."""
    code_digest: str = ""
    """Digest of the code at the time of the claim. A runner that trains with the sources of this machine fails if they
    differ. Empty: no check."""
    git_commit: str = ""
    """Commit of the code, for people; it is not compared."""
    language: Language = Language.ENGLISH
    """Language of the report."""

    def named(self, name: str) -> TrainingRequest:
        """Return this request under the name of a run."""
        return self.model_copy(update={"name": name})

    def to_record(self) -> JsonObject:
        """Return the JSON form of the ledger, without the name; ``config`` and ``gate`` are JSON texts."""
        body = {field: getattr(self, field) for field in type(self).model_fields if field != "name"}
        if self.language == Language.ENGLISH:
            del body["language"]  # as older programs write it: the name of a run follows from this record
        return body | {"config": self.config.model_dump_json(), "gate": self.gate.model_dump_json()}

    @classmethod
    def from_record(cls, run: str, body: Mapping[str, JsonValue]) -> TrainingRequest:
        """Read the JSON form of the ledger, as this or an older program wrote it.

        Keys that are not fields are ignored: a newer program may have added some.

        Raises:
            ConfigError: a value is missing or invalid here, such as a setting that this program does not have.
        """
        values = {field: body[field] for field in cls.model_fields if field in body}
        try:
            config = Config.model_validate_json(str(body.get("config", "")))
            gate = Gate.model_validate_json(str(body.get("gate", "")))
            return cls.model_validate(values | {"name": run, "config": config, "gate": gate})
        except ValidationError as error:
            raise ConfigError(f"training request of run {run}: {explain(error)}") from None
