"""Does the demo's result hang on the training seed, the processor's instructions or the number of threads?"""
