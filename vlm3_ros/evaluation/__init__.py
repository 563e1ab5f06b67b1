# SPDX-License-Identifier: Apache-2.0
"""Scores of what a model answers, on one path for every source of test data.

bag, dataset       sources: recordings, data sets of any format; vlm3_lab adds scenes
parts              what data sets and scenes share: samples to scores and pictures
scores             by task: samples with truth are asked, answers are scored, next to baselines
metrics            arrays in, numbers out; a metric declares how it is shown
answer_counts      how many questions were answered, and why the others were not
tolerance          engines that may fail for a while
result, output     one metrics.json, the same tables on the terminal and on the page
tables, html, scene, pictures, ply, rerun_log   how results are shown
"""
