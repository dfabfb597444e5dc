"""The layouts by name, in a line each; quick to import, for the command line's help."""

HELP = {
    "folder": "any tree of images; train/, val/ and test/ on top are splits, folders below them labels",
    "zip": "a zip file of images laid out like folder, StyleGAN's dataset.json too",
    "tar": "an uncompressed tar file of images laid out like folder",
    "ffhq": "FFHQ, flat or in folders 00000/ ...; the first 50,000 train, the last 20,000 test",
    "afhq": "AFHQ v1 or v2, {train,val}/{cat,dog,wild}; --split all: all 16,130 in both",
    "celeba": "CelebA's aligned images with list_attr_celeba and list_eval_partition (.txt or .csv)",
    "imagenet-patches": "square patches of the images of class folders, or of any folder",
    "idx": "MNIST, Fashion-MNIST, Kuzushiji-MNIST, EMNIST in idx files, .gz or not",
    "mnist-c": "MNIST-C, one folder a corruption; --originals pairs it with MNIST",
    "digits": "the 8x8 digits that scikit-learn brings; takes no PATH",
    "photos": "patches of photographs that scikit-learn and scikit-image bring; takes no PATH",
}
