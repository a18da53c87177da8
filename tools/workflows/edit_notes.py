"""The notes of the templates that start from a recording or change a song."""

# ruff: noqa: E501, because wide characters count twice
from __future__ import annotations

from .common_notes import OWN_FILE, REAL

EDIT_NOTES: dict[str, dict[str, list[str]]] = {
    "cover": {
        "en": [
            "The recording in the style of *{Song}*: melody, chords and beat stay.",
            OWN_FILE["en"],
            "A lower *strength* follows the caption sooner. The cover is as long as its source.",
        ],
        "zh": [
            "以*{Song}*的风格翻唱录音：旋律、和弦和节拍保持不变。",
            OWN_FILE["zh"],
            "降低强度（*strength*）会更早跟随描述。翻唱与原曲等长。",
        ],
        "ja": [
            "録音を *{Song}* のスタイルで作り直します。メロディー、コード、ビートは残ります。",
            OWN_FILE["ja"],
            "*strength* を下げると、早くからキャプションに従います。長さは元の録音と同じです。",
        ],
    },
    "repaint": {
        "en": [
            "Regenerates seconds 4 to 8 of the recording. The rest stays, sample for sample. **Drag on the waveform** of "
            "*{Repaint}* for other seconds.",
            OWN_FILE["en"],
            "*{Song}* describes the whole song. Set its duration to that of the recording.",
        ],
        "zh": [
            "重新生成录音的第 4 至 8 秒，其余部分逐采样点保持不变。**在*{Repaint}*的波形上拖动**，即可选择其他位置。",
            OWN_FILE["zh"],
            "*{Song}*描述整首歌曲，时长应与录音一致。",
        ],
        "ja": [
            "録音の 4 秒から 8 秒までを生成し直します。ほかの部分は 1 サンプルも変わりません。*{Repaint}* の**波形をドラッグ**すると範囲を変えられます。",
            OWN_FILE["ja"],
            "*{Song}* には曲全体を書きます。長さは録音に合わせます。",
        ],
    },
    "extend": {
        "en": [
            "Adds 8 seconds after the end. The recording itself stays as it is.",
            OWN_FILE["en"],
            "If the recording fades out, set *overlap* to 1 to 3. *{Song}* has the total duration: 12 + 8 seconds.",
        ],
        "zh": [
            "在结尾之后增加 8 秒，原录音保持不变。",
            OWN_FILE["zh"],
            "如果录音淡出，将重叠（*overlap*）设为 1 至 3。*{Song}*的时长是总时长：12 + 8 秒。",
        ],
        "ja": [
            "最後に 8 秒を加えます。録音そのものは変わりません。",
            OWN_FILE["ja"],
            "録音がフェードアウトする場合は *overlap* を 1～3 にします。*{Song}* の長さは合計の 12 + 8 秒です。",
        ],
    },
    "stems": {
        "en": [
            "Extracts the drums. *add* generates a new track, *complete* an arrangement around a single track.",
            OWN_FILE["en"],
            "Choose a **base** or **sft** model and set *variant* to *auto*; other models are not trained for stems.",
        ],
        "zh": [
            "提取鼓的音轨。*add* 生成新音轨，*complete* 为单条音轨生成编曲。",
            OWN_FILE["zh"],
            "请选择 **base** 或 **sft** 模型，并将 *variant* 设为 *auto*；其他模型没有为分轨训练。",
        ],
        "ja": [
            "ドラムを取り出します。*add* は新しいトラックを、*complete* は 1 つのトラックから編曲を生成します。",
            OWN_FILE["ja"],
            "**base** か **sft** のモデルを選び、*variant* を *auto* にします。ほかのモデルは学習していません。",
        ],
    },
    "timbre": {
        "en": [
            "A new song with the instruments, voice and acoustics of the recording.",
            OWN_FILE["en"],
            "Ten seconds each are used from its start, from one third on, and from its end. **Drag on the waveform** of "
            "*{Timbre}* to use only a part.",
        ],
        "zh": [
            "用录音的乐器、人声和空间感生成一首新歌。",
            OWN_FILE["zh"],
            "使用录音的开头、三分之一处和结尾各十秒。**在*{Timbre}*的波形上拖动**，即可只用其中一部分。",
        ],
        "ja": [
            "録音の楽器、声、響きを持つ新しい曲を生成します。",
            OWN_FILE["ja"],
            "録音の最初、3 分の 1 の位置、最後の 10 秒ずつを使います。*{Timbre}* の**波形をドラッグ**すると一部だけを使えます。",
        ],
    },
    "morph": {
        "en": [
            "*Recording* describes the source, *Result* the new song. Only the difference changes.",
            OWN_FILE["en"],
            "Change few words, and set both durations to that of the recording.",
        ],
        "zh": [
            "*Recording* 描述录音，*Result* 描述新歌曲。只有两者的差异会改变。",
            OWN_FILE["zh"],
            "只改少量词语，并将两个时长都设为录音的时长。",
        ],
        "ja": [
            "*Recording* は元の録音を、*Result* は新しい曲を説明します。違う部分だけが変わります。",
            OWN_FILE["ja"],
            "少しの言葉だけを変え、両方の長さを録音に合わせます。",
        ],
    },
    "listen": {
        "en": [
            "*{Listen}* describes the recording. Change style or lyrics in *{Edit Song}* and run again: the melody "
            "stays, because the audio codes are connected.",
            OWN_FILE["en"],
        ],
        "zh": [
            "*{Listen}*描述录音。在*{Edit Song}*中修改风格或歌词后再次运行：由于连接了音频代码，旋律保持不变。",
            OWN_FILE["zh"],
        ],
        "ja": [
            "*{Listen}* が録音を説明します。*{Edit Song}* でスタイルや歌詞を変えて、もう一度実行します。"
            "オーディオコードがつながっているので、メロディーは残ります。",
            OWN_FILE["ja"],
        ],
    },
    "by_name": {
        "en": [
            "*{Repaint}* samples the chorus again and keeps the rest. *{Lyric Times}* knows where the chorus is.",
            "*where* also takes *verse 2*, *[Bridge]*, *line 3* and *missing lines*. The node shows the seconds.",
            "Another seed of *New chorus* gives another chorus.",
            REAL["en"],
        ],
        "zh": [
            "*{Repaint}*重新生成副歌，其余保持不变。*{Lyric Times}*知道副歌在哪里。",
            "*where* 也可以填 *verse 2*、*[Bridge]*、*line 3* 和 *missing lines*。节点上显示对应的秒数。",
            "更换 *New chorus* 的种子，就得到另一段副歌。",
            REAL["zh"],
        ],
        "ja": [
            "*{Repaint}* はサビだけを作り直し、残りはそのままにします。サビの場所は *{Lyric Times}* が調べます。",
            "*where* には *verse 2*、*[Bridge]*、*line 3*、*missing lines* も書けます。秒はノードに表示されます。",
            "*New chorus* のシードを変えると、別のサビになります。",
            REAL["ja"],
        ],
    },
    "stem_files": {
        "en": [
            "*{Save Song}* writes four files of equal length and start for a DAW: 0 drums, 1 bass, 2 keyboard, 3 the rest.",
            "They add up to the recording within a millionth of full scale. If a file would clip, all are turned down, "
            "and *{Mix Stems}* shows by how much.",
            "Open the small nodes for other tracks. Extraction needs a base or sft model: *comfy-base* in *{Download Model}*.",
            OWN_FILE["en"],
        ],
        "zh": [
            "*{Save Song}*写出四个长度和起点相同的文件，供 DAW 使用：0 鼓、1 贝斯、2 键盘、3 其余部分。",
            "四个文件相加等于录音，误差小于满刻度的百万分之一。如果文件会削波，则全部一起调低，*{Mix Stems}*显示调低多少。",
            "展开折叠的节点可选择其他音轨。提取音轨需要 base 或 sft 模型：在*{Download Model}*中选择 *comfy-base*。",
            OWN_FILE["zh"],
        ],
        "ja": [
            "*{Save Song}* は長さと開始位置の揃った 4 つのファイルを DAW 用に保存します。0 がドラム、1 がベース、2 がキーボード、3 が残りです。",
            "合計は録音と一致し、誤差はフルスケールの 100 万分の 1 以下です。クリップする場合は全体を下げ、その量を *{Mix Stems}* に表示します。",
            "折りたたまれたノードを開くと、ほかのトラックを選べます。抽出には base または sft モデルが必要です。*{Download Model}* で *comfy-base* を選びます。",
            OWN_FILE["ja"],
        ],
    },
    "mix": {
        "en": [
            "*{Stems}* extracts the drums of a recording, and *{Mix Stems}* adds them to it again: more drums. Negative "
            "gains turn a stem down, −60 mutes it.",
            OWN_FILE["en"],
            "Extraction needs a base or sft model: *comfy-base* in *{Download Model}*.",
        ],
        "zh": [
            "*{Stems}*提取录音中的鼓，*{Mix Stems}*再把它加回录音：鼓声更响。负的增益调低音轨，−60 为静音。",
            OWN_FILE["zh"],
            "提取音轨需要 base 或 sft 模型：在*{Download Model}*中选择 *comfy-base*。",
        ],
        "ja": [
            "*{Stems}* が録音のドラムを抽出し、*{Mix Stems}* がもう一度録音に足してドラムを大きくします。負のゲインは小さく、−60 はミュートです。",
            OWN_FILE["ja"],
            "抽出には base または sft モデルが必要です。*{Download Model}* で *comfy-base* を選びます。",
        ],
    },
}
