"""The model behind MLServer, whose settings name its file."""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Model(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload):
        (tensor,) = payload.inputs
        x = NumpyCodec.decode_input(tensor).astype(np.float32)
        (output,) = self.session.run(None, {tensor.name: x})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", output)])
