"""Intervals and tests for the numbers in the tables: one way for each.

- of a share `share_interval`, of a mean of shares `mean_share_interval`, over classes
  `mean_per_class_interval`;
- of differences and ratios of accuracies, over images, sets and draws: `difference_interval`,
  `ratio_interval` and `crossed`;
- of a mean loss or an area of errors `mean_loss_interval` and `loss_interval`;
- of what has no variance by a formula, the jackknife over groups of images: `groups_of`,
  `jackknife_interval`;
- copies of an image are one piece of evidence in all of them: `Images` says what samples show;
- of a correlation over datasets, by Fisher's transform: `pearson`;
- two methods on the same images: `paired`, which is `mcnemar`, or `flipped` where an image has
  several samples or draws; many pairs: `holm`.

Everything is seeded; an interval that cannot be known is NaN, NaN.
"""
