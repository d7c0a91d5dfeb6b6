"""Other people's tests on our ops: torch's OpInfo and ModuleInfo, ONNX's node tests, and a fuzzer.

``make conformance`` runs them and prints how many samples passed and why the others were skipped.
"""
