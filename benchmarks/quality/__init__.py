"""Retrieval quality: tables whose cells are runs of train.py."""
