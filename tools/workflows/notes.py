"""The notes of the templates, in English, Chinese and Japanese. `{Load Model}` is a node's name in that language."""

# ruff: noqa: E501, because wide characters count twice
from __future__ import annotations

import json
import re
from pathlib import Path

TRANSLATIONS = Path(__file__).resolve().parents[1] / "translations"
TITLES = {"en": "Read me first", "zh": "使用说明", "ja": "はじめに"}
CORE_NAMES = {
    "zh": {"Load Audio": "加载音频", "Preview Audio": "预览音频", "KSampler": "K采样器"},
    "ja": {"Load Audio": "音声を読み込む", "Preview Audio": "オーディオプレビュー", "KSampler": "Kサンプラー"},
}
NAME = re.compile(r"\{([^}]+)\}")

OWN_FILE = {
    "en": "**Your own recording:** choose or upload a file in *{Load Audio}*.",
    "zh": "**使用自己的录音：** 在*{Load Audio}*中选择或上传文件。",
    "ja": "**自分の録音を使う:** *{Load Audio}* でファイルを選択またはアップロードします。",
}
REAL = {
    "en": "*nano* is a tiny demo. For real music, open template **02 Real model**.",
    "zh": "*nano* 只是微型演示模型。要生成真正的音乐，请打开模板 **02 Real model**。",
    "ja": "*nano* は小さなデモ用モデルです。本格的な音楽にはテンプレート **02 Real model** を開いてください。",
}
FOLLOWED = {
    "en": "**Run** downloads *comfy-turbo* (6.3 GB) once. The demo *nano* does not follow its lyrics closely enough.",
    "zh": "点击**运行**后会下载 *comfy-turbo*（6.3 GB，仅一次）。演示模型 *nano* 演唱歌词不够准确。",
    "ja": "**実行**を押すと *comfy-turbo*（6.3 GB）を一度だけダウンロードします。デモの *nano* は歌詞に十分には従いません。",
}

NOTES: dict[str, dict[str, list[str]]] = {
    "text": {
        "en": [
            "Write caption and lyrics, press **Run**, and listen in *{Preview Audio}*. Its ⋮ menu saves the song.",
            REAL["en"],
            "**Live preview:** set *Live preview method* to *auto* in ComfyUI's settings, or start ComfyUI with "
            "**--preview-method auto**.",
        ],
        "zh": [
            "填写描述和歌词，点击**运行**，然后在*{Preview Audio}*中试听。⋮ 菜单可以保存歌曲。",
            REAL["zh"],
            "**实时预览：** 在 ComfyUI 设置中将*实时预览*设为 *auto*，或用 **--preview-method auto** 启动 ComfyUI。",
        ],
        "ja": [
            "キャプションと歌詞を書いて**実行**を押し、*{Preview Audio}* で聴きます。⋮ メニューで曲を保存できます。",
            REAL["ja"],
            "**ライブプレビュー:** ComfyUI の設定で*ライブプレビューメソッド*を *auto* にするか、"
            "**--preview-method auto** を付けて ComfyUI を起動します。",
        ],
    },
    "real": {
        "en": [
            "**Run** downloads *comfy-turbo* (6.3 GB) once, then generates the song. Nothing downloads before you "
            "press Run.",
            "*{Download Model}* shows what is missing. For edits, *comfy-base* and *comfy-sft* are better.",
        ],
        "zh": [
            "点击**运行**后，先下载 *comfy-turbo*（6.3 GB，仅一次），再生成歌曲。点击运行之前不会下载任何文件。",
            "*{Download Model}*会显示缺少的文件。编辑歌曲时，*comfy-base* 和 *comfy-sft* 效果更好。",
        ],
        "ja": [
            "**実行**を押すと *comfy-turbo*（6.3 GB）を一度だけダウンロードし、曲を生成します。実行する前には何もダウンロードしません。",
            "*{Download Model}* は不足しているファイルを示します。編集には *comfy-base* と *comfy-sft* が適しています。",
        ],
    },
    "files": {
        "en": [
            "The single files of ComfyUI's own ACE-Step 1.5, with the planner (5 Hz LM). If a file is missing, "
            "ComfyUI offers its download.",
            "*{Plan Song}* plans melody and structure. Another seed there gives another melody.",
        ],
        "zh": [
            "使用 ComfyUI 自带 ACE-Step 1.5 的单个文件和规划模型（5 Hz LM）。如果缺少文件，ComfyUI 会提示下载。",
            "*{Plan Song}*规划旋律和结构，更换其种子会得到另一段旋律。",
        ],
        "ja": [
            "ComfyUI 標準の ACE-Step 1.5 の単体ファイルとプランナー（5 Hz LM）を使います。足りないファイルは ComfyUI がダウンロードを提案します。",
            "*{Plan Song}* はメロディーと構成を計画します。シードを変えると別のメロディーになります。",
        ],
    },
    "line": {
        "en": [
            "Write one line into *{Write Song}* and press **Run**. *{Edit Song}* shows the song; change what you like "
            "and run again.",
            "*source* in *{Edit Song}*: **input** takes the next written song, **edits** keeps yours.",
        ],
        "zh": [
            "在*{Write Song}*中写一句话，点击**运行**。*{Edit Song}*显示写好的歌曲；修改后再次运行即可。",
            "*{Edit Song}*的 *source*：**input** 采用新写的歌曲，**edits** 保留你的修改。",
        ],
        "ja": [
            "*{Write Song}* に一行書いて**実行**を押します。*{Edit Song}* に曲が表示されます。直したら、もう一度実行します。",
            "*{Edit Song}* の *source*: **input** は新しく書かれた曲を、**edits** は編集した曲を使います。",
        ],
    },
    "planned": {
        "en": [
            "*{Plan Song}* completes the metadata and generates audio codes: melody and structure.",
            "Another seed in *{Plan Song}* gives another melody; in *{Sample Song}*, another take of the same one.",
            "*{Save Audio Codes}* saves the plan. *{Load Audio Codes}* reads it from the input folder.",
        ],
        "zh": [
            "*{Plan Song}*补全元数据并生成音频代码，即旋律和结构。",
            "更换*{Plan Song}*的种子得到另一段旋律；更换*{Sample Song}*的种子得到同一旋律的另一个版本。",
            "*{Save Audio Codes}*保存规划，*{Load Audio Codes}*从输入文件夹读取。",
        ],
        "ja": [
            "*{Plan Song}* はメタデータを補い、メロディーと構成を表すオーディオコードを生成します。",
            "*{Plan Song}* のシードを変えると別のメロディーに、*{Sample Song}* のシードを変えると同じメロディーの別テイクになります。",
            "*{Save Audio Codes}* で計画を保存し、*{Load Audio Codes}* で input フォルダーから読み込みます。",
        ],
    },
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
            "Ten seconds each are used from its start, from one third on, and from its end.",
        ],
        "zh": [
            "用录音的乐器、人声和空间感生成一首新歌。",
            OWN_FILE["zh"],
            "使用录音的开头、三分之一处和结尾各十秒。",
        ],
        "ja": [
            "録音の楽器、声、響きを持つ新しい曲を生成します。",
            OWN_FILE["ja"],
            "録音の最初、3 分の 1 の位置、最後の 10 秒ずつを使います。",
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
    "takes": {
        "en": [
            "Takes 1 and 2 have the seeds 7 and 8. Raise *batch_size* for more.",
            "The retake is a variation of take 1: same seed, *retake_variance* above 0.",
            "Found one you like? Set *seed* to its seed and *batch_size* to 1.",
        ],
        "zh": [
            "第 1、2 个版本的种子是 7 和 8。增大批量大小可得到更多版本。",
            "重录是第 1 个版本的变化：种子相同，重录变化（*retake_variance*）大于 0。",
            "选好之后，将种子设为该版本的种子，批量大小设为 1。",
        ],
        "ja": [
            "テイク 1 と 2 のシードは 7 と 8 です。*batch_size* を上げると増えます。",
            "リテイクはテイク 1 の変奏です。シードは同じで、*retake_variance* が 0 より大きくなっています。",
            "気に入ったテイクのシードを *seed* に入れ、*batch_size* を 1 にします。",
        ],
    },
    "songs": {
        "en": [
            "*{Batch Songs}* samples several songs of one duration at once, up to eight. Song 1 has *seed*, song 2 "
            "*seed* + 1.",
            REAL["en"],
        ],
        "zh": [
            "*{Batch Songs}*一次采样多首时长相同的歌曲，最多八首。第 1 首用 *seed*，第 2 首用 *seed* + 1。",
            REAL["zh"],
        ],
        "ja": [
            "*{Batch Songs}* は同じ長さの曲を 8 曲まで一度にサンプリングします。1 曲目は *seed*、2 曲目は *seed* + 1 です。",
            REAL["ja"],
        ],
    },
    "lora": {
        "en": [
            "*{Load LoRA}* makes any caption sound like bells here. Strength 1 is as trained; set 0 to compare.",
            "Put your own files or PEFT folders into *models/loras* and press R. They need the model that they were "
            "trained on, 2B or XL.",
        ],
        "zh": [
            "这里的*{Load LoRA}*让任何描述都变成钟琴。强度 1 为训练时的效果，设为 0 可作比较。",
            "把自己的文件或 PEFT 文件夹放入 *models/loras*，然后按 R。模型须与训练时相同：2B 或 XL。",
        ],
        "ja": [
            "ここでは *{Load LoRA}* がどのキャプションもベルの音にします。強さ 1 が学習したとおりです。0 にすると比べられます。",
            "自分のファイルや PEFT フォルダは *models/loras* に置き、R キーを押します。学習に使ったモデル（2B または XL）が必要です。",
        ],
    },
    "times": {
        "en": [
            "*{Lyric Times}* finds when each line is sung, and shows the lines that are missing and the times.",
            "*{Save Lyrics}* writes them for players and video editors into ComfyUI's folder *output/audio*.",
            "For a recording, write its lyrics into *{Song}* and connect *{Encode Audio}* to *latent*.",
            FOLLOWED["en"],
        ],
        "zh": [
            "*{Lyric Times}*找出每一句何时演唱，并显示漏唱的句子和时间。",
            "*{Save Lyrics}*把它们写入 ComfyUI 的 *output/audio* 文件夹，供播放器和视频编辑器使用。",
            "如果是录音，把它的歌词写入*{Song}*，并把*{Encode Audio}*接到 Latent。",
            FOLLOWED["zh"],
        ],
        "ja": [
            "*{Lyric Times}* は各行がいつ歌われるかを調べ、抜けた行と時刻を表示します。",
            "*{Save Lyrics}* はそれをプレーヤーや動画編集ソフト用に ComfyUI の *output/audio* フォルダへ書き出します。",
            "録音の場合は、その歌詞を *{Song}* に書き、*{Encode Audio}* を潜在表現につなぎます。",
            FOLLOWED["ja"],
        ],
    },
    "best": {
        "en": [
            "*{Sample Song}* makes four takes. *{Pick Best}* scores how well each one sings its lyrics, and passes on "
            "the best.",
            "Set *batch_size* to make more takes, and *keep* to hear more than one.",
            FOLLOWED["en"],
        ],
        "zh": [
            "*{Sample Song}*生成四个版本。*{Pick Best}*为每个版本唱歌词的好坏打分，只传出最好的。",
            "*batch_size* 设定生成几个版本，*keep* 设定保留几个。",
            FOLLOWED["zh"],
        ],
        "ja": [
            "*{Sample Song}* は 4 つのテイクを作ります。*{Pick Best}* は歌詞への忠実さを採点し、最も良いものを渡します。",
            "*batch_size* でテイクの数、*keep* で残す数を変えられます。",
            FOLLOWED["ja"],
        ],
    },
    "by_name": {
        "en": [
            FOLLOWED["en"],
            "*{Repaint}* samples the chorus again and keeps the rest. *{Lyric Times}* knows where the chorus is.",
            "*where* also takes *verse 2*, *[Bridge]*, *line 3* and *missing lines*. The node shows the seconds.",
            "Another seed of *New chorus* gives another chorus.",
        ],
        "zh": [
            FOLLOWED["zh"],
            "*{Repaint}*重新生成副歌，其余保持不变。*{Lyric Times}*知道副歌在哪里。",
            "*where* 也可以填 *verse 2*、*[Bridge]*、*line 3* 和 *missing lines*。节点上显示对应的秒数。",
            "更换 *New chorus* 的种子，就得到另一段副歌。",
        ],
        "ja": [
            FOLLOWED["ja"],
            "*{Repaint}* はサビだけを作り直し、残りはそのままにします。サビの場所は *{Lyric Times}* が調べます。",
            "*where* には *verse 2*、*[Bridge]*、*line 3*、*missing lines* も書けます。秒はノードに表示されます。",
            "*New chorus* のシードを変えると、別のサビになります。",
        ],
    },
    "finish": {
        "en": [
            "*{Finish Song}* brings the song to the loudness of streaming services and shows the levels before and "
            "after.",
            "*{Save Song}* writes title, artist, lyrics and BPM for players, and the workflow: drop the saved file on "
            "the canvas, and this graph opens again.",
            "The file lies in ComfyUI's folder *output/audio*.",
        ],
        "zh": [
            "*{Finish Song}*把歌曲调到流媒体平台的响度，并显示处理前后的电平。",
            "*{Save Song}*写入标题、艺术家、歌词和 BPM，以及工作流：把保存的文件拖到画布上，即可再次打开此工作流。",
            "文件位于 ComfyUI 的 *output/audio* 文件夹。",
        ],
        "ja": [
            "*{Finish Song}* は曲を配信サービスのラウドネスに合わせ、処理前と処理後のレベルを表示します。",
            "*{Save Song}* はタイトル、アーティスト、歌詞、BPM とワークフローを書き込みます。保存したファイルをキャンバスにドロップすると、このワークフローが再び開きます。",
            "ファイルは ComfyUI の *output/audio* フォルダにあります。",
        ],
    },
    "stem_files": {
        "en": [
            "Three tracks of a recording are extracted in one batch, and *{Save Song}* writes them as files of equal "
            "length and start, for a DAW. Open the small nodes to choose other tracks.",
            OWN_FILE["en"],
            "Extraction needs a base or sft model: *comfy-base* in *{Download Model}*.",
        ],
        "zh": [
            "一次批量提取录音的三条音轨，*{Save Song}*把它们存成长度和起点相同的文件，供 DAW 使用。展开折叠的节点可选择其他音轨。",
            OWN_FILE["zh"],
            "提取音轨需要 base 或 sft 模型：在*{Download Model}*中选择 *comfy-base*。",
        ],
        "ja": [
            "録音の 3 つのトラックを一度に抽出し、*{Save Song}* が長さと開始位置の揃ったファイルとして DAW 用に保存します。"
            "折りたたまれたノードを開くと、ほかのトラックを選べます。",
            OWN_FILE["ja"],
            "抽出には base または sft モデルが必要です。*{Download Model}* で *comfy-base* を選びます。",
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
    "choose": {
        "en": [
            "Three takes of a song. Press **Run**, play them in *{Compare Takes}*, switch with the numbers, and press ○ "
            "beside the best one.",
            "Run again: *{Save Song}* saves the kept take. The seed is fixed, so nothing is generated again.",
            REAL["en"],
        ],
        "zh": [
            "一首歌的三个版本。点击**运行**，在*{Compare Takes}*中播放，用数字切换，在最好的版本旁点 ○。",
            "再次运行，*{Save Song}*就会保存这一版。种子固定，因此不会重新生成。",
            REAL["zh"],
        ],
        "ja": [
            "1 曲の 3 つのテイクです。**実行**を押し、*{Compare Takes}* で再生して番号で切り替え、最も良いテイクの横の ○ を押します。",
            "もう一度実行すると、*{Save Song}* がそのテイクを保存します。シードは固定なので、再生成は起こりません。",
            REAL["ja"],
        ],
    },
    "train": {
        "en": [
            "**Run** trains a LoRA on the example song in a minute or two, and plays a new song with it.",
            "**Your own songs:** put ten or more into a folder of ComfyUI's input folder, a text file with a caption "
            "beside each, and write its name into *{Song Folder}*.",
            "**Your model:** choose *base* or *turbo* twice, with 1000 steps and a learning rate of 0.0001.",
        ],
        "zh": [
            "点击**运行**，一两分钟内用示例歌曲训练一个 LoRA，并用它播放一首新歌。",
            "**使用自己的歌曲：** 把十首以上放入 ComfyUI 输入文件夹中的一个文件夹，每首旁放一个写有描述的文本文件，并在*{Song Folder}*中填写文件夹名。",
            "**使用自己的模型：** 两处都选择 *base* 或 *turbo*，步数 1000，学习率 0.0001。",
        ],
        "ja": [
            "**実行**を押すと、1、2 分でサンプルの曲から LoRA を学習し、それを使った新しい曲を再生します。",
            "**自分の曲を使う:** ComfyUI の入力フォルダの中のフォルダに 10 曲以上と、それぞれのキャプションのテキストファイルを置き、フォルダ名を *{Song Folder}* に書きます。",
            "**自分のモデルを使う:** 2 か所とも *base* か *turbo* を選び、ステップ数 1000、学習率 0.0001 にします。",
        ],
    },
    "ksampler": {
        "en": [
            "ComfyUI's own *{KSampler}*: the same seed gives the same song as *{Sample Song}*. *{Empty Song}* sets "
            "the duration.",
            "Set steps and cfg yourself: 8 and 1 for turbo and nano, 50 and 5 to 9 for base and sft.",
        ],
        "zh": [
            "使用 ComfyUI 自带的*{KSampler}*：相同种子得到与*{Sample Song}*相同的歌曲。*{Empty Song}*设定时长。",
            "步数和 cfg 需自行设置：turbo 和 nano 用 8 和 1，base 和 sft 用 50 和 5 至 9。",
        ],
        "ja": [
            "ComfyUI 標準の *{KSampler}* を使います。同じシードなら *{Sample Song}* と同じ曲になります。*{Empty Song}* が長さを決めます。",
            "ステップと cfg は自分で設定します。turbo と nano は 8 と 1、base と sft は 50 と 5～9 です。",
        ],
    },
}


def note_texts(key: str) -> dict[str, dict[str, str]]:
    """Return title and text of a note per language, with the nodes' translated names."""
    return {
        language: {"title": TITLES[language], "text": "\n\n".join(named(line, language) for line in lines) + "\n"}
        for language, lines in NOTES[key].items()
    }


def named(text: str, language: str) -> str:
    names = node_names(language)
    return NAME.sub(lambda match: names.get(match[1], match[1]), text)


def node_names(language: str) -> dict[str, str]:
    """Return the translated names of nodes, as far as there are any."""
    path = TRANSLATIONS / f"{language}.json"
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {**known, **CORE_NAMES.get(language, {})}
