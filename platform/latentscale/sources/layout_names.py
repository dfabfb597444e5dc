"""A line of help for each layout, in a module that the command line imports quickly."""

LAYOUTS = {
    "folder": "any tree; train/, val/, test/ are splits, others labels",
    "zip": "a zip file of such a tree, or of StyleGAN's dataset tool",
    "tar": "such a tree in a tar, a folder of tars, a-{00..09}.tar",
    "ffhq": "FFHQ, flat or in 00000/ ...; the first 50,000 train",
    "afhq": "AFHQ v1, v2: {train,val}/{cat,dog,wild}; --split all",
    "celeba": "CelebA's aligned images with its lists (.txt or .csv)",
    "imagenet-patches": "square patches of the images of any tree",
    "idx": "(Fashion-, Kuzushiji-, E, Q)MNIST's idx files, .gz or not",
    "mnist-c": "MNIST-C, one folder per corruption; see --originals",
    "digits": "scikit-learn's 8x8 digits; takes no PATH",
    "photos": "patches of 11 bundled photographs; takes no PATH",
    "clusters": "generated points of Gaussian clusters; takes no PATH",
}
