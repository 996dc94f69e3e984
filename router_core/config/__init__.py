"""The router's settings: file + environment + flags -> one validated, frozen `RouterConfig`.

Each setting may be given in four places; the first that has it wins: flag, environment, file, default.

    file          health: {interval_s: 5}
    environment   ROUTER_CORE_HEALTH__INTERVAL_S=5
    flag          --port 30000          (a few settings only)

Nothing here opens a socket or knows which policies exist: options are checked by the policy's own `Config`.
"""

from router_core.config.admission import AdmissionConfig
from router_core.config.auth import ApiKey, AuthConfig
from router_core.config.failures import BreakerConfig, RetriesConfig
from router_core.config.fields import ConfigField, iter_fields
from router_core.config.key_file import all_keys
from router_core.config.limits import LimitsConfig
from router_core.config.loading import config_file, config_of, load_config
from router_core.config.models import ModelConfig
from router_core.config.pd import PdConfig, PrefillWorker
from router_core.config.pools import DEFAULT_POOL, PoolSettings, pools_of
from router_core.config.schema import HealthConfig, RouterConfig, TelemetryConfig
from router_core.config.selection import PluginSelection, PolicySelection
from router_core.config.sources import Setting

__all__ = [
    "DEFAULT_POOL",
    "AdmissionConfig",
    "ApiKey",
    "AuthConfig",
    "BreakerConfig",
    "ConfigField",
    "HealthConfig",
    "LimitsConfig",
    "ModelConfig",
    "PdConfig",
    "PluginSelection",
    "PolicySelection",
    "PoolSettings",
    "PrefillWorker",
    "RetriesConfig",
    "RouterConfig",
    "Setting",
    "TelemetryConfig",
    "all_keys",
    "config_file",
    "config_of",
    "iter_fields",
    "load_config",
    "pools_of",
]
