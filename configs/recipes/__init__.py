"""Recipes to start from; each is made of parts."""
