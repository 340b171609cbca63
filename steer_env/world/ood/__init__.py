"""The out-of-distribution family of the built-in world: written apart from the first one, never trained on.

Other devices, pictures, words, strategies, techniques, planner and adaptive attacker. Ground truth, safety
policy, judge and the language of replies are those of the whole world.
"""
