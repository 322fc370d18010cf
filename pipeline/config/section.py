"""What every section of a configuration has in common, and how a section says that something in it is wrong."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A frozen group of keys; unknown keys are refused. A field's description says what is allowed: errors quote it.

    Attributes:
        one_of: keys of which exactly one must be given; overriding one of them drops the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    one_of: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _check_one_of(self) -> Self:
        given = [key for key in self.one_of if getattr(self, key) is not None]
        if self.one_of and len(given) != 1:
            found = " and ".join(given) or "none"
            raise reason_error(f"found {found}, expected exactly one of {', '.join(self.one_of)}")
        return self

    @classmethod
    def allowed(cls, key: str) -> str:
        """What is allowed for a key: its description."""
        return str(cls.model_fields[key].description)


def held_section(kind: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The section that a key holds; None for a key that is unknown or holds anything else."""
    field = kind.model_fields.get(key)
    inner = field.annotation if field else None
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def rule_error(key: str, found: object, expected: str) -> PydanticCustomError:
    """An error on a key of the section being validated: the value found, and what is expected."""
    return PydanticCustomError("rule", "{expected}", {"key": key, "found": found, "expected": expected})


def reason_error(reason: str) -> PydanticCustomError:
    """An error on the value being validated whose text is complete by itself."""
    return PydanticCustomError("reason", "{reason}", {"reason": reason})
