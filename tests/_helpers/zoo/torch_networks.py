"""PyTorch networks as people write them: segmentation, detection, sequences, sound, graphs."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

INPUTS: dict[str, dict[str, tuple[object, ...]]] = {}
"""The inputs of each network by name: the kind of numbers and the shape without the batch."""


def _network(**inputs):
    def register(function):
        def build():
            torch.manual_seed(0)
            model = function()
            fit_batch_norms(model, inputs)
            return model.eval()

        INPUTS[function.__name__] = inputs
        build.__name__ = function.__name__
        return build

    return register


def fit_batch_norms(model, inputs):
    """Let batch norms take the statistics of random inputs, as those of a trained network have them."""
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    model.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(*(torch.randn(8, *shape) for _, *shape in inputs.values()))


def _block(inside, out):
    return nn.Sequential(
        nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
        nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self, bilinear):
        super().__init__()
        self.down = nn.ModuleList([_block(3, 8), _block(8, 16), _block(16, 32)])
        self.up = nn.ModuleList()
        for inside, out in ((32, 16), (16, 8)):
            grow = (
                nn.Sequential(
                    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(inside, out, 1)
                )
                if bilinear
                else nn.ConvTranspose2d(inside, out, 2, stride=2)
            )
            self.up.append(nn.ModuleList([grow, _block(2 * out, out)]))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        skips = []
        for index, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if index else x)
            skips.append(x)
        skips.pop()
        for grow, block in self.up:
            skip, x = skips.pop(), grow(x)
            height, width = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
            x = F.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])
            x = block(torch.cat([skip, x], dim=1))
        return self.head(x)


@_network(image=("image", 3, 32, 32))
def unet():
    return UNet(False)


@_network(image=("image", 3, 36, 28))
def unet_bilinear():
    return UNet(True)


class Detector(nn.Module):
    """A head of one scale whose boxes are decoded with a grid and anchors, as YOLO does it."""

    def __init__(self, classes=3):
        super().__init__()
        self.body = nn.Sequential(_block(3, 8), nn.MaxPool2d(2), _block(8, 16), nn.MaxPool2d(2), _block(16, 24))
        self.head = nn.Conv2d(24, 2 * (5 + classes), 1)
        self.classes = classes
        self.register_buffer("anchors", torch.tensor([[6.0, 8.0], [14.0, 12.0]]).view(1, 2, 1, 1, 2))

    def forward(self, image):
        x = self.head(self.body(image))
        batch, _, height, width = x.shape
        x = x.view(batch, 2, 5 + self.classes, height, width).permute(0, 1, 3, 4, 2).contiguous()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack((columns, rows), 2).view(1, 1, height, width, 2).float()
        y = x.sigmoid()
        centre = (y[..., 0:2] * 2.0 - 0.5 + grid) * 4
        size = (y[..., 2:4] * 2) ** 2 * self.anchors
        return torch.cat((centre, size, y[..., 4:]), -1).view(batch, -1, 5 + self.classes)


@_network(image=("image", 3, 32, 32))
def detector():
    return Detector()


class FocusDetector(nn.Module):
    """Two scales, SiLU, slices of every other pixel, and a distribution over distances, as newer YOLOs have them."""

    def __init__(self, bins=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU())
        self.deeper = nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.SiLU())
        self.boxes, self.scores = nn.Conv2d(16, 4 * bins, 1), nn.Conv2d(16, 3, 1)
        self.bins = bins

    def forward(self, image):
        x = torch.cat([image[..., ::2, ::2], image[..., 1::2, ::2], image[..., ::2, 1::2], image[..., 1::2, 1::2]], 1)
        first = self.stem(x)
        levels = [first, self.deeper(first)]
        boxes = torch.cat([self.boxes(level).flatten(2) for level in levels], 2)
        scores = torch.cat([self.scores(level).flatten(2) for level in levels], 2)
        batch, _, anchors = boxes.shape
        distribution = boxes.view(batch, 4, self.bins, anchors).softmax(2)
        distances = (distribution * torch.arange(self.bins, dtype=boxes.dtype).view(1, 1, -1, 1)).sum(2)
        near, far = distances.chunk(2, 1)
        return {"boxes": torch.cat((-near, far), 1), "scores": scores.sigmoid()}


@_network(image=("image", 3, 32, 32))
def focus_detector():
    return FocusDetector()


class Residual(nn.Module):
    """Dilated causal convolutions with a residual, as in a temporal convolutional network."""

    def __init__(self, inside, out, dilation):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.first = norm(nn.Conv1d(inside, out, 3, padding=2 * dilation, dilation=dilation))
        self.second = norm(nn.Conv1d(out, out, 3, padding=2 * dilation, dilation=dilation))
        self.chomp = 2 * dilation
        self.match = nn.Conv1d(inside, out, 1) if inside != out else None

    def forward(self, x):
        y = F.relu(self.first(x)[:, :, : -self.chomp].contiguous())
        y = F.relu(self.second(y)[:, :, : -self.chomp].contiguous())
        return F.relu(y + (x if self.match is None else self.match(x)))


class TCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(Residual(4, 16, 1), Residual(16, 16, 2), Residual(16, 16, 4))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.body(x)[:, :, -1])


@_network(signal=("series", 4, 40))
def tcn():
    return TCN()


class WaveNet(nn.Module):
    def __init__(self, layers=4, width=12):
        super().__init__()
        self.start = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(layers))
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.skip = nn.ModuleList(nn.Conv1d(width, 16, 1) for _ in range(layers))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 16, 1), nn.ReLU(), nn.Conv1d(16, 32, 1))

    def forward(self, wave):
        x, total = self.start(wave.unsqueeze(1)), 0
        for index, (gate, residual, skip) in enumerate(zip(self.gates, self.residual, self.skip, strict=True)):
            value, control = gate(F.pad(x, (2**index, 0))).chunk(2, dim=1)
            y = torch.tanh(value) * torch.sigmoid(control)
            total = total + skip(y)
            x = x + residual(y)
        return F.log_softmax(self.end(total), dim=1)


@_network(wave=("audio", 64))
def wavenet():
    return WaveNet()


class CRNN(nn.Module):
    """Convolutions, then a bidirectional LSTM over the columns, as networks that read text have it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(_block(1, 8), nn.MaxPool2d(2, 2), _block(8, 16), nn.MaxPool2d((2, 1), (2, 1)))
        self.rows = nn.LSTM(16 * 4, 16, bidirectional=True, num_layers=2)
        self.head = nn.Linear(32, 11)

    def forward(self, image):
        x = self.body(image)
        x = x.permute(3, 0, 1, 2).flatten(2)
        x, _ = self.rows(x)
        return self.head(x).permute(1, 0, 2)


@_network(image=("image", 1, 16, 40))
def crnn():
    return CRNN()


class SuperResolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.PReLU(), nn.Conv2d(16, 12, 3, padding=1), nn.PReLU(12),
            nn.Conv2d(12, 3 * 4, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, image):
        large = F.interpolate(image, scale_factor=2, mode="bicubic", align_corners=False)
        return (self.body(image) + large).clamp(0, 1)


@_network(image=("pixels", 3, 20, 24))
def super_resolution():
    return SuperResolution()


class Recurrent(nn.Module):
    """A recurrent layer whose last state is classified."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(6, 12, batch_first=True, **options)
        self.head = nn.Linear(12 * (2 if options.get("bidirectional") else 1), 4)

    def forward(self, x):
        states, _ = self.rnn(x)
        return self.head(states[:, -1])


@_network(x=("series", 15, 6))
def lstm():
    return Recurrent("LSTM")


@_network(x=("series", 15, 6))
def gru_deep():
    return Recurrent("GRU", num_layers=2)


@_network(x=("series", 15, 6))
def gru_bidirectional():
    return Recurrent("GRU", bidirectional=True)


@_network(x=("series", 15, 6))
def rnn_tanh():
    return Recurrent("RNN")


class LSTMStates(nn.Module):
    """An LSTM that is given its states and returns them, as it is run on a stream."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 12, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()))
        return self.head(y), (h.transpose(0, 1), c.transpose(0, 1))


@_network(x=("series", 5, 6), h=("series", 1, 12), c=("series", 1, 12))
def lstm_states():
    return LSTMStates()


class LSTMCells(nn.Module):
    """A loop over time in Python around an LSTMCell."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), 8)
        c = x.new_zeros(x.size(0), 8)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
        return self.head(h)


@_network(x=("series", 7, 6))
def lstm_cells():
    return LSTMCells()


class GraphConvolution(nn.Module):
    """Two graph convolutions on dense adjacency, normalized by degree."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, nodes, adjacency):
        adjacency = adjacency + torch.eye(adjacency.size(-1))
        scale = adjacency.sum(-1).pow(-0.5)
        adjacency = scale.unsqueeze(-1) * adjacency * scale.unsqueeze(-2)
        return adjacency @ self.second(F.relu(adjacency @ self.first(nodes)))


@_network(nodes=("series", 9, 5), adjacency=("adjacency", 9, 9))
def graph_convolution():
    return GraphConvolution()


class GraphAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(5, 8, bias=False)
        self.source, self.target = nn.Linear(8, 1, bias=False), nn.Linear(8, 1, bias=False)

    def forward(self, nodes, adjacency):
        h = self.project(nodes)
        scores = F.leaky_relu(self.source(h) + self.target(h).transpose(-1, -2), 0.2)
        scores = scores.masked_fill(adjacency == 0, float("-inf"))
        return F.elu(torch.softmax(scores, -1) @ h)


@_network(nodes=("series", 9, 5), adjacency=("adjacency_with_loops", 9, 9))
def graph_attention():
    return GraphAttention()


class EdgeList(nn.Module):
    """Messages along a list of edges, gathered and scattered."""

    def __init__(self):
        super().__init__()
        self.message, self.update = nn.Linear(10, 8), nn.Linear(13, 4)

    def forward(self, nodes, edges):
        source, target = edges[:, 0].long(), edges[:, 1].long()
        wide = nodes.size(-1)
        sent = nodes.gather(1, source.unsqueeze(-1).expand(-1, -1, wide))
        got = nodes.gather(1, target.unsqueeze(-1).expand(-1, -1, wide))
        messages = F.relu(self.message(torch.cat((sent, got), -1)))
        total = torch.zeros(nodes.size(0), nodes.size(1), 8)
        total = total.scatter_add(1, target.unsqueeze(-1).expand(-1, -1, 8), messages)
        return self.update(torch.cat((nodes, total), -1))


@_network(nodes=("series", 9, 5), edges=("edges", 2, 14))
def edge_list():
    return EdgeList()


class MLP(nn.Module):
    """The first network of every tutorial."""

    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x):
        return F.log_softmax(self.layers(self.flatten(x)), dim=1)


@_network(x=("pixels", 1, 8, 8))
def mlp():
    return MLP()


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 5 * 5, 60), nn.Linear(60, 40), nn.Linear(40, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


@_network(x=("image", 3, 32, 32))
def lenet():
    return LeNet()


class BasicBlock(nn.Module):
    def __init__(self, inside, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != out:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


@_network(x=("image", 3, 32, 32))
def resnet_cifar():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), BasicBlock(8, 8, 1), BasicBlock(8, 16, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


class SqueezeExcite(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


@_network(x=("image", 3, 32, 32))
def mobilenet_block():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish(), SqueezeExcite(16),
        nn.Conv2d(16, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


class ShuffleBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half),
        )  # fmt: skip

    def forward(self, x):
        first, second = x.chunk(2, dim=1)
        x = torch.cat((first, self.branch(second)), dim=1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return x.view(batch, -1, height, width)


@_network(x=("image", 3, 24, 24))
def shufflenet():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), ShuffleBlock(16), ShuffleBlock(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


class TextClassifier(nn.Module):
    """Mean of embeddings over the words that are not padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(100, 16, padding_idx=0)
        self.head = nn.Linear(16, 4)

    def forward(self, ids):
        mask = (ids != 0).unsqueeze(-1).float()
        x = (self.embedding(ids) * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        return self.head(x)


@_network(ids=("padded_ids", 12))
def text_classifier():
    return TextClassifier()


class TransformerTagger(nn.Module):
    """PyTorch's own encoder with sines for positions."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        position = torch.arange(32).unsqueeze(1)
        scale = torch.exp(torch.arange(0, 16, 2) * (-math.log(10000.0) / 16))
        table = torch.zeros(1, 32, 16)
        table[0, :, 0::2], table[0, :, 1::2] = torch.sin(position * scale), torch.cos(position * scale)
        self.register_buffer("table", table)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 7)

    def forward(self, ids):
        x = self.embedding(ids) * math.sqrt(16) + self.table[:, : ids.size(1)]
        return self.head(self.encoder(x, src_key_padding_mask=ids == 0))


@_network(ids=("padded_ids", 12))
def transformer_tagger():
    return TransformerTagger()


class CausalLanguageModel(nn.Module):
    """A small GPT as tutorials build it, with the causal mask as a buffer."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(60, 16), nn.Embedding(24, 16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.head = nn.Linear(16, 60, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("mask", torch.tril(torch.ones(24, 24)).view(1, 1, 24, 24))

    def forward(self, ids):
        batch, length = ids.size()
        x = self.tokens(ids) + self.positions(torch.arange(length, device=ids.device))
        q, k, v = (y.view(batch, length, 2, 8).transpose(1, 2) for y in self.qkv(self.norm(x)).split(16, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(8)
        scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        y = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(batch, length, 16)
        x = x + self.out(y)
        return self.head(x + self.mlp(self.norm2(x)))


@_network(ids=("small_ids", 12))
def causal_language_model():
    return CausalLanguageModel()


class VariationalEncoder(nn.Module):
    """An autoencoder whose code is drawn in training only."""

    def __init__(self):
        super().__init__()
        self.encoder, self.mean, self.spread = nn.Linear(20, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 20), nn.Sigmoid())

    def forward(self, x):
        h = F.relu(self.encoder(x))
        mean, spread = self.mean(h), self.spread(h)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * spread) if self.training else mean
        return self.decoder(code), mean, spread


@_network(x=("series", 20))
def variational_autoencoder():
    return VariationalEncoder()


class Separator(nn.Module):
    """An encoder, a mask and a decoder on the waveform, with group and instance norms."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv1d(1, 16, 8, stride=4, bias=False)
        self.mask = nn.Sequential(
            nn.GroupNorm(1, 16), nn.Conv1d(16, 16, 1), nn.PReLU(),
            nn.Conv1d(16, 16, 3, padding=2, dilation=2, groups=16),
            nn.InstanceNorm1d(16, affine=True), nn.Conv1d(16, 32, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.decoder = nn.ConvTranspose1d(16, 1, 8, stride=4, bias=False)

    def forward(self, wave):
        x = F.relu(self.encoder(wave.unsqueeze(1)))
        mask = self.mask(x).view(x.size(0), 2, 16, -1)
        y = (x.unsqueeze(1) * mask).flatten(0, 1)
        return self.decoder(y).view(wave.size(0), 2, -1)


@_network(wave=("audio", 128))
def separator():
    return Separator()


class Keypoints(nn.Module):
    """Heatmaps and a soft argmax."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(_block(3, 8), nn.MaxPool2d(2), _block(8, 8), nn.Conv2d(8, 5, 1))

    def forward(self, image):
        maps = self.body(image)
        batch, points, height, width = maps.shape
        weights = maps.flatten(2).softmax(-1).view(batch, points, height, width)
        x = (weights.sum(2) * torch.linspace(0, 1, width)).sum(-1)
        y = (weights.sum(3) * torch.linspace(0, 1, height)).sum(-1)
        return torch.stack((x, y), -1), weights.amax((2, 3))


@_network(image=("image", 3, 24, 24))
def keypoints():
    return Keypoints()


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(_block(1, 8), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(32, 8))

    def forward(self, first, second):
        first, second = F.normalize(self.body(first), dim=1), F.normalize(self.body(second), dim=1)
        return F.cosine_similarity(first, second), F.pairwise_distance(first, second)


@_network(first=("image", 1, 16, 16), second=("image", 1, 16, 16))
def siamese():
    return Siamese()


class Mixer(nn.Module):
    """MLP-Mixer: patches by unfold, transposed multilayer perceptrons."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(3 * 16, 16)
        self.norms = nn.ModuleList([nn.LayerNorm(16), nn.LayerNorm(16)])
        self.tokens = nn.Sequential(nn.Linear(36, 32), nn.GELU(), nn.Linear(32, 36))
        self.channels = nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, image):
        x = self.project(F.unfold(image, 4, stride=4).transpose(1, 2))
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norms[1](x))
        return self.head(x.mean(1))


@_network(image=("image", 3, 24, 24))
def mixer():
    return Mixer()


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 24, 1), nn.BatchNorm1d(24), nn.ReLU()
        )
        self.head = nn.Linear(24, 6)

    def forward(self, points):
        x = self.body(points.transpose(2, 1))
        return self.head(torch.max(x, 2, keepdim=False)[0])


@_network(points=("series", 30, 3))
def pointnet():
    return PointNet()
