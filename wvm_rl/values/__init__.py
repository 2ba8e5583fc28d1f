"""Value sources by name."""

from wvm_rl.values.base import ValueConfig
from wvm_rl.values.clock import ClockConfig
from wvm_rl.values.file import FileConfig
from wvm_rl.values.iql import IQLConfig
from wvm_rl.values.noisy import NoisyConfig
from wvm_rl.values.oracle import OracleConfig
from wvm_rl.values.success import SuccessConfig
from wvm_rl.values.wvm import WvmConfig

VALUES: dict[str, type[ValueConfig]] = {
    "wvm": WvmConfig,
    "oracle": OracleConfig,
    "noisy": NoisyConfig,
    "clock": ClockConfig,
    "success": SuccessConfig,
    "file": FileConfig,
    "iql": IQLConfig,
}
