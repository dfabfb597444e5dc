"""The layouts that a build can read: each source turns one layout of an image dataset into a listing."""
