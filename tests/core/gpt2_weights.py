"""A model's weights as published checkpoints hold them."""


def checkpoint(model):
    """The weights under the names, and in the layout, of published checkpoints."""
    state = {}
    for key, value in model.state_dict().items():
        block, _, part = key.partition(".")
        name = f"h.{block[1:]}.{part}" if block[1:].isdigit() else part
        state[name] = (value.T if "c_" in part and value.dim() == 2 else value).contiguous()
    return state
