"""Where bf16 helps."""

import torch


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to autocast to bf16: "auto" does where the hardware multiplies it natively, and fp32 is slower."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AMX, bf16 convolutions on a CPU are emulated: eight times slower than fp32 on AVX2.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_amx())
