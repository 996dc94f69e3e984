"""The settings of models that have a pool of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, model_validator

from router_core.config.pd import PdConfig
from router_core.config.section import Section, WorkerUrls
from router_core.config.selection import PluginSelection, PolicySelection
from router_core.config.values import model_name, split_words
from router_core.contract.worker_url import distinct_urls

RESERVED = "default"
"""The name of the pool for all other models."""

Name = Annotated[str, AfterValidator(model_name)]


class ModelConfig(Section):
    """A model with a pool, a policy and options of its own. A plain string in place of it means the name."""

    name: Name
    """The model's name, as its workers have it; its pool's too."""

    aliases: Annotated[tuple[Name, ...], BeforeValidator(split_words)] = ()
    """Other names by which clients may ask for it; the workers get to see the real one."""

    worker_urls: WorkerUrls = ()
    """Base URLs of workers that serve it, whatever they list, beside those that tell so themselves."""

    policy: PolicySelection | None = None
    """Its policy; unset takes the `policy` of the top level."""

    prefill_policy: PluginSelection | None = None
    """A policy for its prefill workers alone; what else stands under `policy` holds for it too. Needs `pd`."""

    decode_policy: PluginSelection | None = None
    """A policy for its decode workers alone, likewise."""

    wrappers: Annotated[tuple[PluginSelection, ...], BeforeValidator(split_words)] | None = None
    """Plugins around its policy, outermost first; unset takes the `wrappers` of the top level."""

    pd: PdConfig = PdConfig()
    """Prefill/decode disaggregation for this model."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs of all workers named here."""
        return (*self.worker_urls, *self.pd.urls)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _serves_in_one_way(self) -> ModelConfig:
        if self.pd.is_on and self.worker_urls:
            raise ValueError("pd stands beside worker_urls; name prefill and decode workers, or regular ones")
        for name in ("prefill_policy", "decode_policy"):
            if not self.pd.is_on and getattr(self, name) is not None:
                raise ValueError(f"{name} has no workers; name some under pd, or leave {name} out")
        return self


def distinct_models(models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
    """Return `models` if each name and alias is given once, and each worker too.

    Raises:
        ValueError: If not, or if a model takes the name of the pool for all others.
    """
    seen: set[str] = set()
    for model in models:
        for name in (model.name, *model.aliases):
            if name in seen:
                raise ValueError(f"{name!r} stands there more than once; give each name to one model")
            seen.add(name)
        if model.name == RESERVED:
            raise ValueError(f"{RESERVED!r} is the pool of all other models; make it an alias of a model")
    distinct_urls(tuple(url for model in models for url in model.urls))
    return models
