"""Latent laws, their draws and the dynamic latent scale."""
