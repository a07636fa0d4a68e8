"""UniGenBench++ and WISE_Verified: prompts and wording from the published files, answers by any judge of sana-bench."""
