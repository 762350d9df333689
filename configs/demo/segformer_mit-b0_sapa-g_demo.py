# SegFormer-B0 with SAPA-G on the demo's scenes, small enough that one CPU
# core trains it from scratch in about two minutes: what
# tools/analysis_tools/race.py compares upsamplers in.
_base_ = './segformer_mit-b1_sapa-g_demo.py'

model = dict(
    backbone=dict(embed_dims=32),
    decode_head=dict(in_channels=[32, 64, 160, 256], channels=128),
)
