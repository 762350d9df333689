#!/usr/bin/env bash
# Draws the README's pictures anew. `make pictures` trains the demo's models
# and runs the controlled comparisons first; the baselines are trained here.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
analysis=tools/analysis_tools

# The demo's model with another upsampler, unless it is trained already.
train() {  # CONFIG ITERATIONS WORK_DIR KEY=VALUE
  [ -f "$3/iter_$2.pth" ] || "$python" tools/train.py "$1" --resume \
    --work-dir "$3" --cfg-options "$4"
}

seg=configs/demo/segformer_mit-b1_sapa-g_demo.py
seg_sapa=work_dirs/segformer_mit-b1_sapa-g_demo/iter_700.pth
bilinear=model.decode_head.upsample_cfg=None
train "$seg" 700 work_dirs/demo-bilinear "$bilinear"

det=configs/demo/faster-rcnn_r50_fpn-sapa-g_demo.py
det_sapa=work_dirs/faster-rcnn_r50_fpn-sapa-g_demo/iter_350.pth
nearest=model.neck.upsample_cfg=None
train "$det" 350 work_dirs/demo-nearest "$nearest"

depth=configs/demo/bts_r18_sapa-g_demo.py
depth_iters=1200
depth_sapa=work_dirs/bts_r18_sapa-g_demo/iter_$depth_iters.pth
plain=model.decode_head.upsample_cfg=None
variant_b=model.decode_head.upsample_cfg.variant=B
train "$depth" $depth_iters work_dirs/demo-depth-nearest "$plain"
train "$depth" $depth_iters work_dirs/demo-depth-sapa-b "$variant_b"

matting=configs/demo/a2u-matting_r34_sapa-g_demo.py
matting_iters=1200
matting_sapa=work_dirs/a2u-matting_r34_sapa-g_demo/iter_$matting_iters.pth
variant_i=model.decode_head.upsample_cfg.variant=I
train "$matting" $matting_iters work_dirs/demo-matting-bilinear "$plain"
train "$matting" $matting_iters work_dirs/demo-matting-sapa-i "$variant_i"
train "$matting" $matting_iters work_dirs/demo-matting-sapa-b "$variant_b"

# The layer of highest resolution, in each.
"$python" $analysis/visualize_sapa.py "$seg" "$seg_sapa" \
  data/demo/ade/ADEChallengeData2016/images/validation/ADE_val_00000008.jpg \
  --stages upsamplers.0 --out docs/pictures/inside-segformer.png
"$python" $analysis/visualize_sapa.py "$det" "$det_sapa" \
  data/demo/coco/val2017/000000000008.jpg \
  --stages upsamplers.0 --out docs/pictures/inside-faster-rcnn.png

"$python" $analysis/compare_models.py --indices 0 1 --difference \
  --model "$seg" work_dirs/demo-bilinear/iter_700.pth "$bilinear" \
  --model "$seg" "$seg_sapa" --names bilinear SAPA-G \
  --out docs/pictures/segformer.png
"$python" $analysis/compare_models.py --indices 0 1 --difference \
  --model "$det" work_dirs/demo-nearest/iter_350.pth "$nearest" \
  --model "$det" "$det_sapa" --names nearest SAPA-G --score-thr 0.5 \
  --out docs/pictures/faster-rcnn.png

"$python" $analysis/compare_models.py --indices 0 1 --errors \
  --model "$depth" work_dirs/demo-depth-nearest/iter_$depth_iters.pth "$plain" \
  --model "$depth" work_dirs/demo-depth-sapa-b/iter_$depth_iters.pth "$variant_b" \
  --model "$depth" "$depth_sapa" --names nearest SAPA-B SAPA-G \
  --out docs/pictures/bts.png

# An animal and a net.
"$python" $analysis/compare_models.py --indices 12 8 --errors \
  --model "$matting" work_dirs/demo-matting-bilinear/iter_$matting_iters.pth "$plain" \
  --model "$matting" work_dirs/demo-matting-sapa-i/iter_$matting_iters.pth "$variant_i" \
  --model "$matting" work_dirs/demo-matting-sapa-b/iter_$matting_iters.pth "$variant_b" \
  --model "$matting" "$matting_sapa" --names bilinear SAPA-I SAPA-B SAPA-G \
  --background green --out docs/pictures/a2u-matting.png

for form in json md png; do
  cp "work_dirs/comparison/comparison.$form" "docs/comparison/from-scratch.$form"
  cp "work_dirs/comparison-fine-tuned/comparison.$form" \
    "docs/comparison/fine-tuned.$form"
done
