"""A line of help for each layout, in a module that the command line imports quickly."""

LAYOUTS = {
    "folder": "any tree; train/, val/, test/ are splits, others labels",
    "zip": "a zip file of such a tree, or of StyleGAN's dataset tool",
    "tar": "uncompressed tars: such a tree, WebDataset's, tars of tars",
    "parquet": "Hugging Face's data/train-00000-of-00004.parquet, ...",
    "npz": "NumPy's .npz, .npy: ImageNet32, K-49, MedMNIST, Keras, ...",
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
