"""What the options of ``tools/train.py`` change in a config."""

from mmsapa.engine.checkpoint import find_last_checkpoint
from mmsapa.engine.config import ConfigError, type_name


def use_amp(cfg, device):
    """Replace the optimizer wrapper by its mixed-precision counterpart.

    Args:
        cfg (Config): Changed in place.
        device (str): Device type of the training, such as 'cuda'.

    Raises:
        ConfigError: The device, the wrapper or the model has no mixed
            precision.
    """
    if device == 'mps':
        raise ConfigError(
            '--amp needs a GPU that mmengine has mixed precision for, or a '
            'CPU, not mps. Leave it out to train in float32.'
        )
    kind = type_name(cfg.optim_wrapper) or 'OptimWrapper'
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        raise ConfigError(
            f'--amp can only replace an OptimWrapper, not {kind}.'
        )
    if device == 'cpu':
        if cfg.model.get('roi_head'):
            raise ConfigError(
                "--amp: MMCV's RoIAlign takes float32 alone on a CPU. Leave "
                '--amp out to train a detector with RoIs.'
            )
        cfg.optim_wrapper.type = 'mmsapa.CPUAmpOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            cfg.optim_wrapper.pop(key, None)
        return
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def scale_lr(cfg):
    """Scale the learning rate by the batch size.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ConfigError: It does not give the batch size of its learning rate.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ConfigError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size, the batch '
            "size that the config's learning rate is meant for: --cfg-options "
            'auto_scale_lr.base_batch_size=16'
        )
    cfg.auto_scale_lr.enable = True


def resume(cfg, checkpoint):
    """Let the runner resume a training.

    Args:
        cfg (Config): Changed in place.
        checkpoint (str): File, or 'auto' for the last complete one in the
            work dir.

    Returns:
        bool: Whether there is a checkpoint; without one the training starts
        from the beginning.
    """
    if checkpoint == 'auto':
        checkpoint = find_last_checkpoint(cfg.work_dir)
    cfg.resume = checkpoint is not None
    if cfg.resume:
        cfg.load_from = checkpoint
    return cfg.resume
