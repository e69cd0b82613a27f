"""The hardware on which bf16 is faster."""

import torch


def use_bf16(precision: str, device: torch.device) -> bool:
    """Decide whether to autocast to bf16.

    Args:
        precision: "bf16", "fp32", or "auto": if the hardware multiplies bf16 natively.
        device: The device.

    Returns:
        Whether to.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AMX, bf16 convolutions on a CPU are emulated: eight times slower than fp32 on AVX2.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_amx())
