# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the report says to someone who has not read the code."""

_WORST_ROAD = (
    'The pictures that deserve a look first: half of them missed most, the others raised '
    'most false alarms. Outlined in blue: what people labelled. Coloured: what looks '
    'strange, from green over yellow to red; red, white outlined areas are flagged. The '
    'cyan line is the border of the region that the node looks at.'
)
TEXTS = {
    'in short': (
        'One line per set. On roads, "found" means that at least half of an object\'s pixels '
        'are in the mask that the robot would get. The sections below say how sure these '
        'numbers are.'
    ),
    'headline': (
        'All in percent. AP, AUROC and best F1: 100 is perfect. FPR95: 0 is perfect. Two '
        'bundles whose ranges (in brackets) overlap widely cannot be told apart by this table.'
    ),
    'headline, regions': (
        ' "Whole image" also counts buildings, sky and cars, which the bundle was not asked '
        'about; "predicted ground" is where the node looks. "Lost counted": anomalies outside '
        'that region count as missed.'
    ),
    'curves': (
        'Left: go right to find more of the anomaly pixels; the height says how many of the '
        'flagged pixels then are anomalies. The dotted line is what guessing would reach. '
        'Right: how much of what is normal is flagged (left is better) to find so much (up is '
        'better).'
    ),
    'calibration': (
        'Left: the rate that the user chooses, and the share of normal pixels that was really '
        'flagged. On the dashed line the promise is met exactly, below it is kept with room, '
        'above it is broken. Right: how strange normal and anomaly pixels look; the less the '
        'two overlap, the better.'
    ),
    'calibration, anomaly': (
        ' Normal pixels of these sets include things that the bundle does not call normal '
        '(cars, people, leaves), which raises the line on the left.'
    ),
    'calibration, inspection': (
        ' Normal pixels are those without a defect, in flawless and in defective pictures; '
        'pixels beside a defect often look strange, too, which raises the line on the left.'
    ),
    'breakdown': (
        'Which objects are missed, and where false alarms are. A patch is the smallest piece '
        'that the network sees; objects under one patch are hard. "In the region": the share '
        "of the object's pixels that the node looks at at all."
    ),
    'breakdown, place': (
        " Place: by the object's lowest point; on a road, lower in the picture is nearer (the "
        'sets do not tell real distances).'
    ),
    'worst, anomaly': _WORST_ROAD,
    'worst, closed-set': _WORST_ROAD,
    'worst, inspection': (
        'The pictures that deserve a look first: half of them missed most of their defects, the '
        'others raised most false alarms. Outlined in blue: what people labelled. Coloured: what '
        'looks strange, from green over yellow to red and violet; white outlined areas are '
        'flagged.'
    ),
    'worst, maritime': (
        'The pictures that deserve a look first: half of them missed most obstacles, the others '
        'raised most false alarms on open water. Coloured: what was predicted, yellow obstacle, '
        'blue water, violet sky. Outlined in white: the obstacles and the shore that people '
        'labelled.'
    ),
    'segments, labelled': 'Single obstacles are labelled in the set.',
    'segments, made of the labels': (
        'The set does not label single obstacles: a piece of obstacle that touches nothing but '
        'water counts as one; one that touches the sky counts as shore, ships on the horizon '
        'included. These numbers cannot be compared with those of LaRS.'
    ),
    'no size limits': (
        'The metrics of whole objects are left out: no benchmark states size limits for this set.'
    ),
    'products': (
        'All products side by side, in percent; 100 is perfect. The mean is over products, each '
        'counting the same, as the makers of MVTec AD report it.'
    ),
    'promise': (
        'The user chooses how many normal pixels may be flagged; the table says how many '
        'were, for each class that counts as normal and for all of them together ("pooled"). '
        'On the dashed line the promise is met exactly, below it is kept with room, above it '
        'is broken. The vertical lines are 95 % intervals over pictures. In the table: percent of '
        'the pixels flagged; a star marks what is not within a factor of two of the promise.'
    ),
    'differences': (
        'Each line compares two bundles on the same pictures, in percent points. "Resolved": '
        'the interval in brackets leaves zero out, so the difference is more than the luck of '
        'which pictures were drawn. "Not resolved": these pictures cannot tell which one is '
        'better; it does not mean that they are equal.'
    ),
    'time': (
        'Median milliseconds per picture. Reading and measuring run beside the network, so '
        'the columns do not add up to the time of the whole.'
    ),
    'runs': 'The same bundle, engine, settings and pictures give the same numbers.',
}
LOOKED_AT = {  # by the mode of the region of interest
    'ground': 'the predicted ground and what stands on it',
    'labels': 'pixels of the ground classes alone',
    'none': 'the whole picture',
}
GROUP_TEXTS = {
    'inspection': (
        'In percent; 100 is perfect, guessing gives 50 for AUROC. Image AUROC: are defective '
        'pictures stranger than flawless ones, by the strangest spot of each? Pixel AUROC: are '
        'defective pixels stranger than normal ones? AUPRO: how much of each defect region is '
        'found, small ones counting as much as large ones, averaged over the thresholds that '
        'flag up to 30 % of the normal pixels.'
    ),
    'maritime': (
        'In percent. Every pixel is predicted as water, sky or obstacle; a pixel that looks '
        'strange counts as obstacle. Pr: how many alarms on open water were right; Re: how many '
        'obstacles were found (more than 70 % of them predicted); F1: the balance of both. mu: '
        'how much of the strip along the shore is right. mIoU: how well the three areas overlap '
        'with the labels. Q = mIoU x F1 is what the LaRS benchmark ranks by. 100 is perfect for '
        'all of these; "water flagged" is the share of open water taken for an obstacle, and 0 '
        'is perfect.'
    ),
    'labels': (
        'In percent; 100 is perfect. How well the most likely class of every pixel overlaps with '
        'the labels, on average over the classes (mIoU) and one by one, and the share of pixels '
        'with the right class.'
    ),
    'final_map': (
        'The same where flagged pixels became the class that rejects; and how much of every other '
        'class that map calls so (0 is perfect).'
    ),
    'open_set': (
        'In percent; 100 is perfect. mIoU, closed: how well the known classes overlap with the '
        'labels when nothing may be unknown. mIoU, open: the same when strange pixels are '
        'labelled "unknown" and anomalies count as errors of the class they are taken for. '
        '"Lost" is the difference: what keeping the unknown out costs. Each half of the set '
        'takes the threshold that finds 95 % of the anomaly in the other half.'
    ),
    'smiyc': (
        "In percent. The same scores through the rules of the benchmark's own code (an "
        'approximated curve, scores in 16 bits), to compare with its table. sIoU: how well each '
        'object overlaps with what was flagged; PPV: how much of each flagged area is right; '
        'mean F1: objects found and right alarms in balance. FPR95: 0 is perfect, 100 for all '
        'others. The exact numbers are in the table "Pixels".'
    ),
}
WORDS = {
    'anomaly': (
        'something that the bundle has never been shown (an object, a defect); labelled by people'
    ),
    'surprisal': (
        'how strange a pixel looks: 2 means that 1 in 100 normal pixels looks as strange, 3 '
        'means 1 in 1000, and so on'
    ),
    'false alarm rate': 'the share of normal pixels that may be flagged; the user chooses it',
    'mask': 'the pixels that the node reports as obstacle at that rate',
    'AP': (
        'average precision: the mean share of right pixels among the flagged ones, over all '
        'thresholds; a guess gives the share of anomaly pixels in the set'
    ),
    'component-averaged AP': (
        'the same where every object weighs the same, so that a small one counts as much as a '
        'large one; objects under the size limit of the benchmark do not count'
    ),
    'FPR95': 'the share of normal pixels flagged when the threshold finds 95 % of the anomaly',
    'AUROC': (
        'the chance that an anomaly pixel looks stranger than a normal one; a guess gives 50'
    ),
    'best F1': 'the best balance of found and right pixels that any one threshold gives',
    'component F1': (
        'the same for whole objects instead of pixels, as SegmentMeIfYouCan defines it; only '
        'for sets with size limits'
    ),
    '95 % interval': (
        'pictures are drawn again 1000 times with repetition; the middle 95 % of the results'
    ),
}
