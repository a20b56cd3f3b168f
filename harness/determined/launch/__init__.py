"""Launchers: `python3 -m determined.launch.torch_distributed` starts one process for each slot."""
