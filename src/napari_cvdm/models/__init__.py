"""The networks, their checkpoints and the shipped models: the only home of torch.nn."""
