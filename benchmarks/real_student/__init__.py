"""The method on a pretrained language model of 135 M parameters: `python -m benchmarks.real_student`."""
