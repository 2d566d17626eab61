"""Integrated reflections of many crystals become one data set: symmetry, scales, weights, figures by shell, files."""
