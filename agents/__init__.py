"""Policy extraction: how values become per-sample columns (`AGENTS`) and what policy learns from them (`POLICIES`)."""

from agents.awr import AWRConfig
from agents.base import AgentConfig
from agents.bc import BCConfig
from agents.cfg import CFGConfig
from agents.filtered_bc import FilteredBCBinaryConfig, FilteredBCPercentileConfig
from agents.policies.base import PolicyConfig
from agents.policies.flow import FlowConfig
from agents.policies.gaussian import GaussianConfig
from agents.rabc import RABCConfig
from agents.rcp import RCPConfig

AGENTS: dict[str, type[AgentConfig]] = {
    "bc": BCConfig,
    "awr": AWRConfig,
    "filtered_bc_binary": FilteredBCBinaryConfig,
    "filtered_bc_percentile": FilteredBCPercentileConfig,
    "rcp": RCPConfig,
    "cfg": CFGConfig,
    "rabc": RABCConfig,
}

POLICIES: dict[str, type[PolicyConfig]] = {
    "flow": FlowConfig,
    "gaussian": GaussianConfig,
}
