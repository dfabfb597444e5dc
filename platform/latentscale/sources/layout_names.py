"""The layouts by name, in a line each; quick to import, for the command line's help."""

LAYOUTS = {
    "folder": "any tree; train/, val/, test/ are splits, others labels",
    "zip": "a zip file of such a tree; StyleGAN's dataset.json too",
    "tar": "an uncompressed tar file of such a tree",
    "ffhq": "FFHQ, flat or in 00000/ ...; the first 50,000 train",
    "afhq": "AFHQ v1, v2: {train,val}/{cat,dog,wild}; --split all",
    "celeba": "CelebA's aligned images with its lists (.txt or .csv)",
    "imagenet-patches": "square patches of the images of any tree",
    "idx": "(Fashion-, Kuzushiji-, E)MNIST's idx files, .gz or not",
    "mnist-c": "MNIST-C, a folder a corruption; see --originals",
    "digits": "scikit-learn's 8x8 digits; takes no PATH",
    "photos": "patches of 11 bundled photographs; takes no PATH",
    "clusters": "points of Gaussian clusters, drawn; takes no PATH",
}
