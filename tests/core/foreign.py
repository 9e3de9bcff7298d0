"""Models as users bring them: what happens between their layers is written in `forward`."""

import torch
from torch import nn
from torch.nn import functional

CLASSES, SHAPE, LENGTH, VOCABULARY = 4, (3, 8, 8), 6, 12


class Net(nn.Module):
    """Convolutions with functional steps between them, registered in another order than they are used in."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, CLASSES)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        x = functional.relu(self.norm(self.conv1(x)))
        x = functional.relu(self.conv2(self.drop(x)), inplace=True)
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class FunctionalMlp(nn.Module):
    """Shapes fit without the steps between the layers, too: then it is another function."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(192, 9), nn.Linear(9, 9), nn.Linear(9, CLASSES)

    def forward(self, x):
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc3(torch.relu(self.fc2(x)))


class Listed(nn.Module):
    """A module list, and a scale of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(192, 9), nn.Linear(9, 9)])
        self.scale = nn.Parameter(torch.ones(9))
        self.head = nn.Linear(9, CLASSES)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x * self.scale)


class Tokens(nn.Module):
    """Position embeddings that see no row, a tied table, and attention of torch."""

    def __init__(self, tied=True):
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, 8), nn.Embedding(LENGTH, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, VOCABULARY, bias=False)
        self.head = nn.Linear(VOCABULARY, CLASSES)
        if tied:
            self.out.weight = self.words.weight

    def forward(self, ids):
        ids = ids.clamp(min=0)
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(torch.tanh(self.out(self.attention(x, x, x)[0].mean(1))))


class Rms(nn.Module):
    """A norm that nothing draws anew."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.gain


class WithRms(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(192, 9), Rms(9), nn.Linear(9, CLASSES)

    def forward(self, x):
        return self.head(self.norm(torch.relu(self.fc(x.flatten(1)))))


class Recurrent(nn.Module):
    """A layer that gives a tuple, and is no single product: neither layers nor vmap tell its samples apart."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(24, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.head(self.lstm(x.flatten(2).transpose(1, 2).reshape(len(x), -1, 24))[0][:, -1])


def seeded(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def resnet18():
    from torchvision.models import resnet18

    return resnet18(num_classes=CLASSES)


def mobilenet():
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=CLASSES)


def vit():
    from torchvision.models import VisionTransformer

    made = VisionTransformer(
        image_size=16, patch_size=8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=CLASSES
    )
    nn.init.normal_(made.heads.head.weight)  # zero at first, so that nothing before it would get a gradient
    return made


class Logits(nn.Module):
    """A model of transformers as a classifier of token ids."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, ids):
        return self.inner(input_ids=ids.clamp(min=0)).logits


def gpt2():
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=8, n_layer=3, n_head=2, num_labels=CLASSES, pad_token_id=0
    )
    return Logits(GPT2ForSequenceClassification(config))


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=CLASSES,
    )
    return Logits(BertForSequenceClassification(config))


def images(rows=6, side=8):
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(3))


def ids(rows=6):
    return torch.randint(VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(4))
