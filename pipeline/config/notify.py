"""The section of a run's configuration that says who is told how the run has ended."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from difffusr.pipeline.config import patterns
from difffusr.pipeline.config.section import Section, reason_error
from difffusr.pipeline.config.values import Text
from difffusr.pipeline.ground.urls import is_loopback, located

#: How a run may end, as far as anybody is told.
Event = Literal["published", "incomplete", "failed", "over_budget", "stopped"]


def hook_url(text: str) -> str:
    """The URL of a webhook in its usual form. It may be a secret: errors do not show it.

    Raises:
        PydanticCustomError: it is no https:// URL; http:// is for this machine alone.
    """
    try:
        url = located(text, "/")
    except ValueError as error:
        raise reason_error(f"the URL (not shown: it may be a secret) {error}") from None
    if not url.startswith("https://") and not (url.startswith("http://") and is_loopback(url)):
        raise PydanticCustomError("no_hook", "an https:// URL")
    return url


def _hook(text: str, _info: ValidationInfo) -> str:
    return hook_url(text)


HookUrl = Annotated[Text, AfterValidator(_hook), WithJsonSchema(patterns.HOOK_URL)]

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class NotifySection(Section):
    """A webhook that is told how a run has ended; without `url` or `url_env` nobody is."""

    url: HookUrl | None = Field(
        default=None, repr=False, description="the https:// URL of a webhook, or null; url_env keeps it out of the file"
    )
    url_env: Variable | None = Field(
        default=None, repr=False, description="the name of an environment variable that holds the URL, or null"
    )
    secret_env: Variable | None = Field(
        default=None,
        repr=False,
        description="the name of an environment variable that holds the secret that messages are signed with, or null",
    )
    events: Annotated[tuple[Event, ...], Field(strict=False, min_length=1)] = Field(
        default=("published", "incomplete", "failed", "over_budget", "stopped"),
        description="a list of 'published', 'incomplete' (published, but chips failed), 'failed', 'over_budget', "
        "'stopped'",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.url is not None and self.url_env is not None:
            raise reason_error("found url and url_env, expected one of them")
        if self.secret_env is not None and not self.wanted:
            raise reason_error("found secret_env without url or url_env, expected one of them as well")
        return self

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told."""
        return self.url is not None or self.url_env is not None
