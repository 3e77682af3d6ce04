"""Fitted routers on disk: a folder of JSON and safetensors, and what they predict."""
