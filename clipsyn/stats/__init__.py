"""Intervals and tests for the numbers in the tables: one way for each.

- of a proportion: `wilson_interval`; of a mean over classes: `mean_per_class_interval`;
- of a mean over samples, of differences and of ratios: the paired bootstrap, `bootstrap_mean`,
  `bootstrap_means`, and `Resamples` for what is no mean;
- copies of an image are one piece of evidence in all of them: `Images` says what samples show;
- of means over sets that share images: `bootstrap_sets`;
- of a correlation over datasets, by Fisher's transform: `pearson`, `spearman`;
- of a mean over images and draws together: `crossed`;
- two methods on the same images: `paired`, which is `mcnemar`, or `flipped` where an image has
  several samples or draws; on the same datasets:
  `wilcoxon`; many pairs: `holm`.

Everything is seeded; an interval that cannot be known is NaN, NaN.
"""
