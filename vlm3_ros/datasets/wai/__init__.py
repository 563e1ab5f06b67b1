# SPDX-License-Identifier: Apache-2.0
"""Data sets in the WAI format of map-anything.

A data set is a folder of scene folders. A scene holds `scene_meta.json` (an extension of
Nerfstudio's transforms.json with OpenCV camera-to-world matrices), images, depth as EXR files,
masks, and a matrix of the covisibility of its frames.

Source: https://github.com/facebookresearch/map-anything (data_processing/README.md, section "WAI
Dataset Format", and the programs that write and load it).
"""
