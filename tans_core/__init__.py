"""TANS: which pretrained network should I start from for this data set, within these limits?"""
