"""What every section of the settings is made of: its base class and the types that more than one of them uses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from router_core.config.values import header_name, log_level, not_bool, single_word, split_words
from router_core.contract.worker_url import distinct_urls, worker_url

Word = Annotated[str, AfterValidator(single_word)]
WorkerUrl = Annotated[str, AfterValidator(worker_url)]
WorkerUrls = Annotated[tuple[WorkerUrl, ...], BeforeValidator(split_words), AfterValidator(distinct_urls)]
HeaderName = Annotated[str, AfterValidator(header_name), Field(json_schema_extra={"format": "header-name"})]
HeaderNames = Annotated[tuple[HeaderName, ...], BeforeValidator(split_words)]
Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(not_bool)]
Count = Annotated[int, Field(ge=1), BeforeValidator(not_bool)]
Bytes = Annotated[int, Field(ge=1024), BeforeValidator(not_bool)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False), BeforeValidator(not_bool)]
Rate = Annotated[float, Field(gt=0, le=1_000_000_000, allow_inf_nan=False), BeforeValidator(not_bool)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(log_level)]


class Section(BaseModel):
    """A group of settings; the docstring under each attribute is its description everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)
