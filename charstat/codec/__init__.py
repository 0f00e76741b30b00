"""The codec: text and files in as many bits as the mixture says. stream.py has Encoder and Decoder, files.py whole files."""
