"""mPLUG for visual question answering (Li et al., 2022): the judge of DPG-Bench, without modelscope."""
