"""The SAPA layer in its three variants."""

import torch
import torch.nn as nn
from torch import Tensor

from ..ops import (
    channel_norm,
    interpolation_prior,
    norm_project,
    sapa_kernels,
    sapa_upsample,
)
from ..ops.checks import check_window
from ..ops.prior import FLOOR
from .guided import GuidedUpsampler, is_plain

# Parameter names of the authors' modules (y is their guide) and ours.
_AUTHORS_NAMES = {
    'norm_y': 'norm_guide',
    'q': 'query',
    'qy': 'query',
    'qx': 'query_x',
    'k': 'key',
}
# What makes queries; biases start at 0 anyway.
_QUERY_MODULES = {
    'I': ['norm_guide'],
    'B': ['query'],
    'G': ['query', 'query_x'],
}


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map, pixel by pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x``, a Tensor[N, C, H, W]."""
        if self.weight is not None and self.bias is not None:
            return channel_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _foldable(norm, projections):
    """Whether all are the unmodified modules of the constructor."""
    return (
        is_plain(norm, ChannelNorm)
        and norm.bias is not None
        and all(
            is_plain(p, nn.Conv2d)
            and p.bias is not None
            and (p.kernel_size, p.stride) == ((1, 1), (1, 1))
            and (p.padding, p.groups) == ((0, 0), 1)
            for p in projections
        )
    )


class SAPA(GuidedUpsampler):
    """Similarity-aware point affiliation, a guided upsample layer.

    Each output pixel is a softmax-weighted mean of a K x K window of ``x``;
    the weights are similarities of guide and ``x``
    (https://arxiv.org/abs/2209.12866, section 3). Both are normalized over
    channels to compute the weights; the mean is taken of ``x`` itself.

    - ``I``, inner product: compares guide and ``x`` as they are.
    - ``B``, low-rank bilinear form: compares projections of both.
    - ``G``, gated: as ``B``, but a gate mixes the query with a projection of
      ``x``, not normalized.

    With a prior, which is ours and not the paper's, the layer starts as an
    interpolation and learns to depart from it: the logarithm of that one's
    weights is added to the logits (:func:`mmsapa.ops.interpolation_prior`),
    places outside the map are masked, and what makes queries starts at 0:
    the projections, or in ``I``, which has none, the norm of the guide. The
    gradient reaches these in the first step, and all else from the second
    on. Parameters and their names are as without.

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide, 3 for an
            image. Default: ``in_channels``.
        variant (str): ``'I'``, ``'B'`` or ``'G'``; ``'I'`` needs as many
            guide channels as input channels. Default: ``'G'``.
        embed_dims (int): Channels of queries and keys; ``'I'`` has no
            embedding and ignores it. Default: 32.
        kernel_size (int): Side of the window in pixels of ``x``, odd.
            Default: 5.
        scale_factor (int): Size of the guide over size of ``x``. Default: 2.
        prior (str, optional): ``'bilinear'`` or ``'nearest'``, the
            interpolation to start as, for a ``kernel_size`` of at least 3.
            Default: None, the paper's layer.
        prior_floor (float): The least logit of the prior, below 0: that of
            places that the interpolation does not weigh, and of any whose
            weight is less than e to it. Higher, the start is less exact and
            the layer departs from it sooner. Default: -10.

    Raises:
        ValueError: If the variant or the prior is unknown, there is a
            ``prior_floor`` without a prior, ``kernel_size`` is even, too
            small for a prior or above 512 over ``scale_factor``, or ``'I'``
            has different numbers of channels.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        variant: str = 'G',
        embed_dims: int = 32,
        kernel_size: int = 5,
        scale_factor: int = 2,
        prior: str | None = None,
        prior_floor: float = FLOOR,
    ):
        super().__init__(in_channels, guide_channels, scale_factor)
        guide_channels = self.guide_channels
        if variant not in ('I', 'B', 'G'):
            raise ValueError(
                f"SAPA: expected variant 'I', 'B' or 'G', got {variant!r}."
            )
        if variant == 'I' and guide_channels != in_channels:
            raise ValueError(
                "SAPA: variant 'I' compares guide and x as they are and "
                'expects as many channels in both, got guide_channels='
                f'{guide_channels} and in_channels={in_channels}; take '
                "variant 'B' or 'G', which project them."
            )
        self.variant = variant
        self.embed_dims = in_channels if variant == 'I' else embed_dims
        check_window('SAPA', kernel_size, scale_factor)
        self.kernel_size = kernel_size
        self.prior, self.prior_floor = prior, prior_floor
        logits = None
        if prior is not None:
            logits = self._make_prior()
        elif prior_floor != FLOOR:
            raise ValueError(
                f'SAPA: expected a prior with prior_floor={prior_floor}, got '
                "none; set prior='bilinear' or 'nearest', or leave it out."
            )
        # Not persistent: checkpoints are the same with a prior and without.
        self.register_buffer('prior_logits', logits, persistent=False)

        self.norm_guide = ChannelNorm(guide_channels)
        self.norm_x = ChannelNorm(in_channels)
        if variant != 'I':
            self.query = nn.Conv2d(guide_channels, embed_dims, 1)
            self.key = nn.Conv2d(in_channels, embed_dims, 1)
        if variant == 'G':
            self.query_x = nn.Conv2d(in_channels, embed_dims, 1)
            self.gate = nn.Conv2d(in_channels, 1, 1)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw projections from N(0, 0.02^2); norms become the identity.

        With a prior, what makes queries is 0.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        if self.prior is not None:
            for name in _QUERY_MODULES[self.variant]:
                nn.init.zeros_(getattr(self, name).weight)
            self._set_prior()

    def _make_prior(self):
        return interpolation_prior(
            self.prior, self.kernel_size, self.scale_factor, self.prior_floor
        )

    def _set_prior(self):
        self.prior_logits.copy_(self._make_prior())

    def _apply(self, *args, **kwargs):
        """As every module does it; a prior without memory gets numbers."""
        was_meta = self.prior is not None and self.prior_logits.is_meta
        super()._apply(*args, **kwargs)
        if was_meta and not self.prior_logits.is_meta:
            self._set_prior()
        return self

    def _upsample(self, x: Tensor, guide: Tensor) -> Tensor:
        query, key = self._embed(x, guide)
        return sapa_upsample(
            query,
            key,
            x,
            self.kernel_size,
            self.scale_factor,
            self.prior_logits,
        )

    def kernels(self, x: Tensor, guide: Tensor) -> Tensor:
        """Compute the weights of the means that ``forward`` takes.

        Args:
            x (Tensor[N, in_channels, H, W]): As in :meth:`forward`.
            guide (Tensor[N, guide_channels, Hq, Wq]): As in :meth:`forward`.

        Returns:
            Tensor[N, K * K, Hq, Wq]: As :func:`mmsapa.ops.sapa_kernels`.
        """
        query, key = self._embed(self._fit(x, guide), guide)
        return sapa_kernels(
            query, key, self.kernel_size, self.scale_factor, self.prior_logits
        )

    def _embed(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Compute queries from the guide and keys from ``x``."""
        if self.variant == 'I':
            return self.norm_guide(guide), self.norm_x(x)
        (query,) = self._project(guide, self.norm_guide, self.query)
        if self.variant == 'B':
            return query, *self._project(x, self.norm_x, self.key)
        key, gate = self._project(x, self.norm_x, self.key, self.gate)
        # Projecting before upsampling gives the same and is s * s times
        # cheaper. Autocast may have changed the dtypes.
        gate, query_x = (
            self._nearest(low, guide).to(query.dtype)
            for low in (gate.sigmoid(), self.query_x(x))
        )
        return torch.lerp(query_x, query, gate), key

    @staticmethod
    def _project(x, norm, *projections):
        """Normalize and project, in one pass if all modules are plain."""
        if not _foldable(norm, projections):
            normed = norm(x)
            return [projection(normed) for projection in projections]
        weight, bias = (
            torch.cat(parts) if len(parts) > 1 else parts[0]
            for parts in (
                [p.weight.flatten(1) for p in projections],
                [p.bias for p in projections],
            )
        )
        out = norm_project(x, norm.weight, norm.bias, weight, bias, norm.eps)
        return out.split([p.out_channels for p in projections], 1)

    def _load_from_state_dict(self, state_dict, prefix, metadata, *args):
        """Accept the authors' names, and Linear for our 1x1 Conv2d."""
        for name in [n for n in state_dict if n.startswith(prefix)]:
            module, dot, rest = name[len(prefix) :].partition('.')
            ours = f'{prefix}{_AUTHORS_NAMES.get(module, module)}{dot}{rest}'
            tensor = state_dict.pop(name)
            if tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
            state_dict[ours] = tensor
        # Weights that are assigned bring their memory, and no prior.
        weight = state_dict.get(f'{prefix}norm_x.weight')
        if (
            metadata.get('assign_to_params_buffers')
            and weight is not None
            and self.prior is not None
            and self.prior_logits.is_meta
        ):
            self.prior_logits = torch.empty_like(
                self.prior_logits, device=weight.device
            )
        # Nor does any checkpoint; to_empty() may have left other numbers.
        if self.prior is not None and not self.prior_logits.is_meta:
            self._set_prior()
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f'{self.in_channels}, guide_channels={self.guide_channels}, '
            f'variant={self.variant!r}, embed_dims={self.embed_dims}, '
            f'kernel_size={self.kernel_size}, '
            f'scale_factor={self.scale_factor}, prior={self.prior!r}, '
            f'prior_floor={self.prior_floor}'
        )
